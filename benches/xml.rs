//! A menu of 2 KiB, parsed and validated, beside what quick-xml needs to split the same bytes into events.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use quick_xml::Reader;
use quick_xml::events::Event;

const MENU: &str = include_str!("menu.xml");

fn documents(c: &mut Criterion) {
    assert!(offhook::xml::parse(MENU.as_bytes(), None).findings.is_empty(), "the menu is clean");
    let mut group = c.benchmark_group("xml");
    group.throughput(criterion::Throughput::Bytes(MENU.len() as u64));
    group.bench_function("parse and validate", |b| {
        b.iter(|| offhook::xml::parse(black_box(MENU.as_bytes()), None));
    });
    group.bench_function("quick-xml events alone", |b| b.iter(|| events(black_box(MENU))));
    group.bench_function("write", |b| {
        let document = offhook::xml::parse(MENU.as_bytes(), None).document.expect("the menu is clean");
        b.iter(|| offhook::xml::write::document(black_box(&document.elements)));
    });
    group.finish();
}

fn events(text: &str) -> usize {
    let mut reader = Reader::from_str(text);
    let mut count = 0;
    while !matches!(reader.read_event(), Ok(Event::Eof) | Err(_)) {
        count += 1;
    }
    count
}

criterion_group!(benches, documents);
criterion_main!(benches);
