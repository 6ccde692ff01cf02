//! Finds the addresses at which the media of this machine is reachable from outside, for
//! `public.media_ips = "auto"`, and the address of the TURN server.
//!
//! A public address of an interface is used directly. Behind NAT, STUN servers report the address
//! (`stun`), and the last answer is stored in `store.data_dir` in case none answers at the next
//! start (`memory`). `choice` selects the addresses from the answers, without I/O.

mod choice;
mod memory;
mod stun;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use choice::DetectedAddresses;
use engine::config::{Config, MediaIps, Turn};
use media::sockets::interface_addresses;
use media::turn::TurnServer;
use memory::Memory;
use model::can_reach;

/// The public addresses of this machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FoundAddresses {
    /// The addresses, at least one. The preferred one of each family is first.
    pub addresses: Vec<PublicAddress>,
    /// Warnings about problems that may prevent audio, one sentence each.
    pub warnings: Vec<String>,
}

/// A public address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    pub ip: IpAddr,
    pub source: Source,
}

/// How an address was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Assigned to an interface of this machine.
    Interface,
    /// Reported by this STUN server.
    Stun(String),
    /// Reported by a STUN server at an earlier start. The network has not changed since.
    Earlier,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface => f.write_str("an interface of this machine"),
            Self::Stun(server) => write!(f, "reported by {server}"),
            Self::Earlier => f.write_str("found at an earlier start"),
        }
    }
}

/// No address was found.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not find the public address of this machine: {0}; set [public] media_ips to it, or let UDP through to a server of [public] stun_servers"
)]
pub struct NotFoundError(String);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }

    fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Returns an address of a documentation prefix (RFC 5737, RFC 3849). Its route is the default
    /// route.
    fn elsewhere(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, 1).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

/// Replaces `"auto"` in a configuration with the addresses that are found, and logs them.
///
/// # Errors
/// Returns an error if there is none.
pub async fn resolve(config: &mut Config) -> Result<(), NotFoundError> {
    if config.public.media_ips != MediaIps::Auto || config.turn.is_some() {
        return Ok(());
    }
    let file = memory::file_in(&config.store.data_dir);
    let earlier = memory::read(&file);
    let (FoundAddresses { addresses, warnings }, seen) = search(config, &earlier).await?;
    if let Err(error) = memory::write(&file, &earlier, &seen) {
        tracing::warn!(file = %file.display(), %error, "public address not saved for the next start");
    }
    for PublicAddress { ip, source } in &addresses {
        tracing::info!(%ip, %source, "public address found");
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let ips = addresses.into_iter().map(|address| address.ip).collect();
    config.public.media_ips = MediaIps::Listed(ips);
    Ok(())
}

/// The TURN server of the configuration with its address.
///
/// # Errors
/// Returns a text for people if the name has no address that `listen.media` can reach.
pub async fn turn_server(config: &Config) -> Result<Option<TurnServer>, String> {
    let Some(Turn { server, username, password }) = &config.turn else { return Ok(None) };
    let listen = config.listen.media.ip();
    let found = stun::look_up(std::slice::from_ref(server)).await;
    let mut addresses = found.iter().map(|found| found.reached_from(listen));
    let address = addresses.next().unwrap_or_else(|| Err(server.to_string()));
    let address = address.map_err(|why| format!("the TURN server {why}; see [turn]"))?;
    Ok(Some(TurnServer { address, username: username.clone(), password: password.clone() }))
}

/// Finds the public addresses that reach `listen.media`. Takes up to five seconds if servers don't
/// answer. Writes no file.
///
/// # Errors
/// Returns an error if there is none.
pub async fn find(config: &Config) -> Result<FoundAddresses, NotFoundError> {
    let earlier = memory::read(&memory::file_in(&config.store.data_dir));
    Ok(search(config, &earlier).await?.0)
}

/// Finds the addresses. Also returns the reported addresses to be stored for the next start.
async fn search(
    config: &Config,
    earlier: &Memory,
) -> Result<(FoundAddresses, Memory), NotFoundError> {
    let listen = config.listen.media.ip();
    let interfaces = interface_addresses()
        .map_err(|e| NotFoundError(format!("the interfaces could not be read: {e}")))?;
    let locals = |family| local_addresses(family, listen, &interfaces);
    let mut detected =
        [Family::V4, Family::V6].map(|family| DetectedAddresses::new(family, locals(family)));
    if detected.iter().any(DetectedAddresses::needs_stun) {
        let servers = stun::look_up(&config.public.stun_servers).await;
        let [v4, v6] = &mut detected;
        tokio::join!(stun::ask(v4, listen, &servers), stun::ask(v6, listen, &servers));
    }
    choice::choose(&detected, earlier)
}

/// The addresses of a family at which this machine receives media, the preferred one first.
fn local_addresses(family: Family, listen: IpAddr, interfaces: &[IpAddr]) -> Vec<IpAddr> {
    if !listen.is_unspecified() {
        return Some(listen).filter(|ip| family.has(*ip)).into_iter().collect();
    }
    let mut ips: Vec<IpAddr> = interfaces
        .iter()
        .filter(|ip| family.has(**ip) && !ip.is_loopback() && can_reach(**ip, listen))
        .copied()
        .collect();
    let preferred = source_address(family.unspecified(), (family.elsewhere(), 9).into()).ok();
    ips.sort_by_key(|ip| Some(*ip) != preferred);
    ips
}

/// Returns the source address of packets to `to`. Sends nothing.
fn source_address(from: IpAddr, to: std::net::SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests;
