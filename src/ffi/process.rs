//! What a process forbids itself: secrets in core dumps, files that others can read (R21, R22); and what it asks for:
//! descriptors enough for its connections (R10).

/// No core dumps, of this process and those it starts.
///
/// # Errors
/// The system's.
pub fn no_core_dumps() -> std::io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `setrlimit` reads the struct, which outlives the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// What this process makes is for its owner only.
pub fn private_files() {
    // SAFETY: `umask` takes and gives a number, and can't fail.
    unsafe { libc::umask(0o077) };
}

/// Descriptors asked for: connections in, those out, media ports, the store, and room to spare.
const DESCRIPTORS: libc::rlim_t = 32_768;

/// Raises the number of descriptors that the process may have as far as the system lets it, up to what is of use to us.
/// Gives the number.
///
/// # Errors
/// The system's.
pub fn raise_descriptor_limit() -> std::io::Result<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `getrlimit` writes the struct, which outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    if limit.rlim_cur < DESCRIPTORS {
        let wanted = libc::rlimit { rlim_cur: limit.rlim_max.min(DESCRIPTORS), ..limit };
        // SAFETY: `setrlimit` reads the struct, which outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0 {
            limit = wanted;
        }
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Whether something could not be opened because this process, or the system, has as many files open as it may.
pub fn no_descriptor_left(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Nice value of [`thread_first`].
const FIRST: libc::c_int = -10;

/// Lets the calling thread go before the others of this process. It takes the right to do so: root, or `LimitNICE=`.
///
/// # Errors
/// The system's; the thread runs as before.
pub fn thread_first() -> std::io::Result<()> {
    // SAFETY: takes and gives numbers; 0 is the calling thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Takes space for a file from the disk beforehand, without changing its length.
///
/// # Errors
/// The system's, also where the file system has no such thing.
pub fn reserve(file: &std::fs::File, bytes: u64) -> std::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let bytes = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
    // SAFETY: takes numbers; the descriptor is open as long as `file` is borrowed.
    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, bytes) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
