//! Measures scheduling delay and free memory for [`Pressure`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use engine::admission::{Lag, Pressure};
use model::Clock;

/// Free memory below which new calls are refused, in bytes. Live calls may still need it.
const MEMORY_LEFT_MIN: u64 = 64 << 20;
/// Free memory below which accounts with many calls leave the rest to the others, in bytes.
const MEMORY_SCARCE: u64 = 128 << 20;
/// Interval of memory checks.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);
/// Time without new work after which the scheduling delay is no longer measured.
const IDLE: Duration = Duration::from_secs(2);

/// Measures until `stop`.
pub(super) async fn watch(pressure: Arc<Pressure>, clock: Clock, stop: CancellationToken) {
    let memory = Memory::of_this_process();
    let (mut of_calls, mut of_webhooks) = (Lag::of_calls(), Lag::of_webhooks());
    let (mut checked, mut low_memory, mut shedding) = (clock.now(), false, false);
    let (mut asked, mut late) = (clock.now(), false);
    loop {
        if pressure.was_asked() {
            asked = clock.now();
        } else if !late && !shedding && clock.now().saturating_duration_since(asked) >= IDLE {
            // Without new calls, only the end of a shortage matters.
            let limit = if pressure.is_scarce() { MEMORY_INTERVAL } else { Duration::MAX };
            let rest = tokio::time::timeout(limit, pressure.asked());
            match stop.run_until_cancelled(rest).await {
                None => return,
                Some(Ok(())) => asked = clock.now(),
                Some(Err(_)) => {}
            }
        }
        let before = clock.now();
        let interval = of_calls.interval().min(of_webhooks.interval());
        if stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
            return;
        }
        let now = clock.now();
        let slept = now.saturating_duration_since(before);
        late = of_calls.woken(interval, slept);
        pressure.late(late);
        let but = of_webhooks.woken(interval, slept).then(|| Lag::let_in(slept));
        if but.is_some() && !shedding {
            warn!(?slept, "scheduling delay too high; answering some webhooks with 503");
        }
        shedding = but.is_some();
        pressure.shed(but);
        if now.saturating_duration_since(checked) >= MEMORY_INTERVAL {
            checked = now;
            let left = memory.left();
            let is_low = left.is_some_and(|left| left < MEMORY_LEFT_MIN);
            if is_low && !low_memory {
                warn!(left, "low memory; refusing new calls as overloaded");
            }
            low_memory = is_low;
            pressure.out_of_memory(low_memory);
            pressure.scarce(left.is_some_and(|left| left < MEMORY_SCARCE));
        }
    }
}

/// Sources of the memory figures.
#[derive(Clone)]
pub(super) struct Memory {
    /// Control group of this process, if it has a memory limit.
    group: Option<PathBuf>,
}

impl Memory {
    pub(super) fn of_this_process() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let group = own
            .map(|own| Path::new("/sys/fs/cgroup").join(own))
            .filter(|g| group_free(g).is_some());
        Self { group }
    }

    /// Free memory for prompts, in bytes. `None` if the system does not report it.
    pub(super) fn free() -> Option<u64> {
        static MEMORY: OnceLock<Memory> = OnceLock::new();
        MEMORY.get_or_init(Self::of_this_process).left()
    }

    /// Resident memory of this process, in bytes. `None` if `/proc` is not readable.
    pub(super) fn resident() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    /// Share of the available memory that this process uses, from 0 to 1. At 1, calls are refused.
    /// 0 if the system does not report it.
    pub(super) fn load(&self) -> f64 {
        match (Self::resident(), self.left()) {
            (Some(used), Some(left)) => {
                let all = used.saturating_add(left.saturating_sub(MEMORY_LEFT_MIN));
                used as f64 / all.max(1) as f64
            }
            (_, None) | (None, _) => 0.0,
        }
    }

    /// Free memory in bytes. `None` if the system does not report it.
    fn left(&self) -> Option<u64> {
        let machine =
            std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
        let group = self.group.as_deref().and_then(group_free);
        machine.into_iter().chain(group).min()
    }
}

/// Free bytes of a control group with a limit. Inactive file cache counts as free: the kernel
/// reclaims it.
fn group_free(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let max = number("memory.max")?;
    let cache =
        read("memory.stat").and_then(|text| stat(&text, "inactive_file")).unwrap_or_default();
    Some(max.saturating_sub(number("memory.current")?.saturating_sub(cache)))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// One value of `memory.stat`.
fn stat(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{Memory, available, group_free, stat};

    #[test]
    fn r10_memory_left_is_read_where_the_system_tells() {
        assert_eq!(
            available("MemTotal: 9 kB\nMemAvailable:    1234 kB\nBuffers: 1 kB\n"),
            Some(1234 * 1024)
        );
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        assert_eq!(stat("file 1\ninactive_file 77\n", "inactive_file"), Some(77));
        let group = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| std::fs::write(group.path().join(name), text).expect("write");
        write("memory.max", "max\n");
        assert_eq!(group_free(group.path()), None, "no bound");
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        assert_eq!(group_free(group.path()), Some(100));
        write("memory.stat", "anon 1\ninactive_file 50\n");
        assert_eq!(group_free(group.path()), Some(150));
        let memory = Memory::of_this_process();
        assert!(memory.left().is_none_or(|left| left > 0));
        assert!((0.0..=1.0).contains(&memory.load()), "{}", memory.load());
    }
}
