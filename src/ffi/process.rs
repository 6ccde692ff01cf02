//! What a process forbids itself: secrets in core dumps, files that others can read (R21, R22).

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
