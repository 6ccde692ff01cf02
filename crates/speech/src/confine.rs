//! Confines the speech helper: it can read the voice files and use its pipes, but little else, even
//! if a text exploits its C code.
//!
//! With Landlock only the folders of voices are readable. A seccomp filter refuses all system calls
//! that are not needed for loading a voice, speaking and exiting. There is no access to sockets,
//! programs or other processes.

use std::io;
use std::path::Path;

/// Confines all threads of this process permanently. `start_threads` is called while threads can
/// still be started, and returns when they are running. They inherit the restrictions. Kernels
/// without Landlock (before 5.13) apply only the seccomp filter. Systems other than Linux apply
/// neither.
///
/// # Errors
///
/// Fails if a folder cannot be opened or the kernel refuses a rule.
pub(crate) fn confine(readable: &[&Path], start_threads: fn()) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    linux::confine(readable, start_threads)?;
    #[cfg(not(target_os = "linux"))]
    let _ = (readable, start_threads);
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::Path;

    use landlock::{
        ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
        RulesetCreatedAttr as _,
    };
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    /// The system calls that an allocator, stdio and the exit of a thread or process need.
    const ALLOWED: &[libc::c_long] = &[
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_fstat,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_lseek,
        libc::SYS_madvise,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_newfstatat,
        libc::SYS_openat,
        libc::SYS_pread64,
        libc::SYS_prctl,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        // The system call of `alarm`.
        libc::SYS_setitimer,
        libc::SYS_sigaltstack,
        // Returns the size of a file, which is needed to map it.
        libc::SYS_statx,
        libc::SYS_write,
        libc::SYS_writev,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_alarm,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
    ];

    /// The commands of `fcntl` that are allowed.
    const FCNTL: &[libc::c_int] =
        &[libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC];

    /// Returns a rule that allows a call only if the argument with this index, counted from 0, has
    /// this value.
    fn argument(index: u8, value: u64) -> io::Result<SeccompRule> {
        let is = SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
        is.and_then(|is| SeccompRule::new(vec![is])).map_err(io::Error::other)
    }

    pub(super) fn confine(readable: &[&Path], start_threads: fn()) -> io::Result<()> {
        // Rights that the kernel doesn't know are ignored.
        let abi = ABI::V6;
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))
            .and_then(Ruleset::create)
            .map_err(io::Error::other)?;
        for folder in readable {
            let folder = PathFd::new(folder).map_err(io::Error::other)?;
            let rule = PathBeneath::new(folder, AccessFs::ReadFile | AccessFs::ReadDir);
            rules = rules.add_rule(rule).map_err(io::Error::other)?;
        }
        rules.restrict_self().map_err(io::Error::other)?;
        start_threads();

        let refused = u32::try_from(libc::EPERM).unwrap_or_default();
        let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
        let mut allowed: BTreeMap<_, Vec<SeccompRule>> =
            ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
        // `abort` signals a thread of this process. Others must not be signalled, directly or by
        // making them the owner of a file descriptor.
        let own = u64::from(std::process::id());
        allowed.insert(libc::SYS_tgkill, vec![argument(0, own)?]);
        let commands = FCNTL
            .iter()
            .map(|&command| argument(1, u64::try_from(command).map_err(io::Error::other)?));
        allowed.insert(libc::SYS_fcntl, commands.collect::<io::Result<_>>()?);
        let filter =
            SeccompFilter::new(allowed, SeccompAction::Errno(refused), SeccompAction::Allow, arch);
        let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(io::Error::other)?;
        seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
    }
}
