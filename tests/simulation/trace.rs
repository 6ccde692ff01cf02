//! The steps of a run: always hashed, and kept or printed on request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};

/// Number of steps shown of a failed run.
const KEPT: usize = 40;

thread_local! {
    /// Steps of the last run in this thread, available after a panic.
    static LAST: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// What to do with the steps besides hashing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Nothing,
    /// Keep the last ones for [`last_steps`].
    Last,
    /// Print all.
    All,
}

pub struct Trace {
    hash: Fnv,
    show: Show,
    steps: u64,
}

/// An FNV-1a hasher.
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

/// Returns the last steps of the last run in this thread.
pub fn last_steps() -> String {
    LAST.with_borrow(|last| last.iter().fold(String::new(), |all, line| all + line + "\n"))
}
