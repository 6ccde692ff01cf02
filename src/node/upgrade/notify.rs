//! Notifications for systemd (`sd_notify(3)`), if `NOTIFY_SOCKET` names its socket.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// Reports that the node serves requests.
pub fn notify_ready() {
    notify("READY=1");
}

/// Reports that another process is now the main process of the service.
pub(super) fn notify_main_process(id: u32) {
    notify(&format!("MAINPID={id}"));
}

fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> io::Result<()> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
        Ok(())
    };
    if let Err(error) = send() {
        warn!(%error, state, "systemd not notified");
    }
}
