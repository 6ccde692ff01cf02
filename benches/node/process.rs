//! Starts and stops measured programs and reads their processor time and memory.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A child process that is killed when dropped.
pub(crate) struct Process(pub(crate) Child);

/// Processor time by thread name, in nanoseconds.
pub(crate) type Cpu = HashMap<String, u64>;

impl Process {
    /// Starts the process. If `waits_for_line` is set, waits for its first line on standard output.
    pub(crate) fn start(
        command: &mut Command,
        waits_for_line: bool,
    ) -> std::io::Result<(Self, String)> {
        let out = if waits_for_line { Stdio::piped() } else { Stdio::null() };
        let mut child = Self(command.stdin(Stdio::null()).stdout(out).spawn()?);
        let mut line = String::new();
        if let Some(out) = child.0.stdout.take() {
            std::io::BufReader::new(out).read_line(&mut line)?;
        }
        Ok((child, line.trim().to_owned()))
    }

    /// Returns user plus system time of all threads, from the scheduler's statistics.
    pub(crate) fn cpu(&self) -> Cpu {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.0.id())) else {
            return Cpu::new();
        };
        let of = |thread: std::fs::DirEntry| {
            let spent = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanos = spent.split_whitespace().next()?.parse().ok()?;
            Some((thread.file_name().to_string_lossy().into_owned(), nanos))
        };
        threads.filter_map(Result::ok).filter_map(of).collect()
    }

    /// Returns the processor time spent since `before`. Threads that ended in the meantime are not
    /// included.
    pub(crate) fn cpu_since(&self, before: &Cpu) -> Duration {
        let spent = |(thread, nanos): (&String, &u64)| {
            nanos.saturating_sub(before.get(thread).copied().unwrap_or(0))
        };
        Duration::from_nanos(self.cpu().iter().map(spent).sum())
    }

    /// Like [`Process::cpu_since`], for threads with names that start with `name`.
    pub(crate) fn cpu_since_of(&self, before: &Cpu, name: &str) -> Duration {
        let is_named = |thread: &String| {
            let name_of =
                std::fs::read_to_string(format!("/proc/{}/task/{thread}/comm", self.0.id()));
            name_of.is_ok_and(|of| of.starts_with(name))
        };
        let now = self.cpu();
        let spent = |(thread, nanos): (&String, &u64)| {
            nanos.saturating_sub(before.get(thread).copied().unwrap_or(0))
        };
        Duration::from_nanos(now.iter().filter(|(thread, _)| is_named(thread)).map(spent).sum())
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
