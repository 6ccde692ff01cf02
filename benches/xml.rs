//! Benchmark of parsing and validating a 2 KiB menu, beside the time that quick-xml needs to split
//! the same bytes into events.
//!
//! `cargo bench --bench xml`.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "common/paired.rs"]
mod paired;

use std::hint::black_box;

use quick_xml::Reader;
use quick_xml::events::Event;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MENU: &str = include_str!("menu.xml");

fn main() {
    let parsed = xml::parse(MENU.as_bytes(), None);
    assert!(parsed.findings.is_empty(), "the menu is clean");
    let Some(document) = parsed.document else { return };
    let mut parse = || drop(black_box(xml::parse(black_box(MENU.as_bytes()), None)));
    let mut split = || {
        black_box(events(black_box(MENU)));
    };
    let mut write = || drop(black_box(xml::write::document(black_box(&document.elements))));
    let [parse, split, write] = paired::best([&mut parse, &mut split, &mut write]);
    println!("a menu of {} bytes, {} events", MENU.len(), events(MENU));
    paired::ratio("parse and validate, over quick-xml's events alone", parse, split, 2.0);
    println!("write: {write:.0} ns");
}

fn events(text: &str) -> usize {
    let mut reader = Reader::from_str(text);
    let mut count = 0;
    while !matches!(reader.read_event(), Ok(Event::Eof) | Err(_)) {
        count += 1;
    }
    count
}
