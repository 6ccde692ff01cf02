//! What happened, step by step: hashed always, kept or printed where somebody wants to read it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};

/// Steps shown of a run that failed.
const KEPT: usize = 40;

thread_local! {
    /// Of the run last made in this thread; it outlives a panic.
    static LAST: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// What is done with the steps beside hashing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Nothing,
    /// The last of them are kept: [`last_steps`].
    Last,
    /// All are printed.
    All,
}

pub struct Trace {
    hash: Fnv,
    show: Show,
    steps: u64,
}

/// FNV-1a over what is written to it.
struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    pub fn new(show: Show) -> Self {
        LAST.with_borrow_mut(VecDeque::clear);
        Self { hash: Fnv(0xcbf2_9ce4_8422_2325), show, steps: 0 }
    }

    pub fn step(&mut self, at_us: u64, what: fmt::Arguments<'_>) {
        self.steps += 1;
        let _ = writeln!(self.hash, "{at_us} {what}");
        if self.show == Show::Nothing {
            return;
        }
        let line = format!("{:>12}.{:03} ms  {what}", at_us / 1_000, at_us % 1_000);
        if self.show == Show::All {
            println!("{line}");
        }
        LAST.with_borrow_mut(|last| {
            if last.len() == KEPT {
                last.pop_front();
            }
            last.push_back(line);
        });
    }

    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }
}

/// The last steps of the run last made in this thread.
pub fn last_steps() -> String {
    LAST.with_borrow(|last| last.iter().fold(String::new(), |all, line| all + line + "\n"))
}
