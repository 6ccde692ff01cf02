//! Wakes a thread that waits for commands and datagrams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::sockets::PollSet;

/// Wakes one thread. If the thread is not waiting, callers make no system call.
#[derive(Debug)]
pub(super) struct Waker {
    event: OwnedFd,
    is_waiting: AtomicBool,
}

impl Waker {
    /// Creates a waker.
    ///
    /// # Errors
    ///
    /// Returns the errors of `eventfd(2)`.
    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, is_waiting: AtomicBool::new(false) })
    }

    /// Wakes the thread if it is waiting. Call this after queueing a command.
    pub(super) fn wake(&self) {
        // Orders the command before the read of the flag. Because of this fence and the one in
        // `wait`, either the thread reads the command or this call reads the flag.
        fence(Ordering::SeqCst);
        if self.is_waiting.load(Ordering::Relaxed) && self.is_waiting.swap(false, Ordering::Relaxed)
        {
            // Fails only if the counter is full, and the thread is awake then.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Waits until [`Waker::wake`] is called, a socket of `sockets` is readable, or `timeout` has
    /// elapsed. Returns immediately if `has_commands` finds commands that were queued before.
    pub(super) fn wait(
        &self,
        sockets: Option<&PollSet>,
        timeout: Duration,
        has_commands: impl FnOnce() -> bool,
    ) {
        self.is_waiting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !has_commands() {
            let event = PollFd::new(&self.event, PollFlags::IN);
            let timeout = Timespec::try_from(timeout).ok();
            // An error ends the wait, like a timeout.
            let _ = match sockets {
                Some(sockets) => {
                    let sockets = PollFd::from_borrowed_fd(sockets.as_fd(), PollFlags::IN);
                    poll(&mut [event, sockets], timeout.as_ref())
                }
                None => poll(&mut [event], timeout.as_ref()),
            };
        }
        if !self.is_waiting.swap(false, Ordering::Relaxed) {
            // `wake` was called. If its write follows later, the next wait returns immediately.
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::Waker;

    #[test]
    fn no_command_is_missed() {
        let waker = Arc::new(Waker::new().expect("an event"));
        let (to, commands) = sync_channel(20_000);
        let sender = waker.clone();
        let sending = std::thread::spawn(move || {
            for n in 0..20_000_u32 {
                to.send(n).expect("a receiver");
                sender.wake();
            }
        });
        let mut next = 0;
        while next < 20_000 {
            let mut found = None;
            waker.wait(None, Duration::from_secs(60), || {
                found = commands.try_recv().ok();
                found.is_some()
            });
            for n in found.into_iter().chain(commands.try_iter()) {
                assert_eq!(n, next);
                next += 1;
            }
        }
        sending.join().expect("all sent");
    }
}
