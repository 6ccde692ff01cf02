//! Batched datagram I/O: 64 datagrams per system call, a poll set for many sockets, and the
//! addresses of the machine's interfaces.
//!
//! Safe wrappers of `recvmmsg`, `sendmmsg`, `epoll` and `getifaddrs`.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::{SockAddr, SockAddrStorage};

/// Datagrams per system call.
pub const BATCH: usize = 64;
/// Maximum size of a received datagram in bytes. WebRTC datagrams are smaller than 1,500.
const DATAGRAM_MAX: usize = 2_048;
/// Size of a buffer for a sender's address.
const ADDRESS_MAX: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// Maximum of [`ReceivedDatagram::waited`].
const WAITED_MAX: Duration = Duration::from_millis(100);
/// Size of a buffer for a datagram's control messages.
const CONTROL_SIZE: usize = size_of::<ArrivalMessage>();

/// The control message of a socket with [`timestamp_arrivals`].
#[derive(Clone, Copy)]
#[repr(C)]
struct ArrivalMessage {
    header: libc::cmsghdr,
    at: libc::timespec,
}

/// A received datagram.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedDatagram<'b> {
    pub from: SocketAddr,
    pub bytes: &'b [u8],
    /// The time that it has waited in the socket's buffer. Zero if the socket has no
    /// [`timestamp_arrivals`].
    pub waited: Duration,
}

/// A batch of received datagrams. Its buffers are reused for each call.
pub struct ReceiveBatch {
    bytes: Vec<u8>,
    addresses: Vec<libc::sockaddr_storage>,
    arrivals: Vec<ArrivalMessage>,
    /// The system's wall-clock time of the last call.
    received_at: Duration,
    /// The buffer descriptors, which point into `bytes`. No vector is resized, so that all pointers
    /// stay valid.
    _iovecs: Vec<libc::iovec>,
    /// Points into `names` and `_pieces`. Created once, because filling 64 headers for a socket
    /// with two datagrams costs more than the datagrams.
    headers: Vec<libc::mmsghdr>,
    count: usize,
}

// SAFETY: the pointers point into heap buffers that this value owns, and are used only through
// `&mut self`.
unsafe impl Send for ReceiveBatch {}

impl Default for ReceiveBatch {
    fn default() -> Self {
        let mut bytes = vec![0; BATCH * DATAGRAM_MAX];
        // SAFETY: sockaddr_storage, iovec, mmsghdr, and cmsghdr with timespec are plain C structs
        // for which all zeroes is a valid value.
        let (address, arrival, iovec, header): (
            libc::sockaddr_storage,
            ArrivalMessage,
            libc::iovec,
            libc::mmsghdr,
        ) = unsafe { (zeroed(), zeroed(), zeroed(), zeroed()) };
        let (mut addresses, mut arrivals) = (vec![address; BATCH], vec![arrival; BATCH]);
        let (mut iovecs, mut headers) = (vec![iovec; BATCH], vec![header; BATCH]);
        for ((((header, iovec), address), arrival), buffer) in headers
            .iter_mut()
            .zip(&mut iovecs)
            .zip(&mut addresses)
            .zip(&mut arrivals)
            .zip(bytes.chunks_exact_mut(DATAGRAM_MAX))
        {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = ADDRESS_MAX;
            header.msg_hdr.msg_control = std::ptr::from_mut(arrival).cast();
            header.msg_hdr.msg_controllen = CONTROL_SIZE as _;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
        }
        let received_at = Duration::ZERO;
        Self { bytes, addresses, arrivals, received_at, _iovecs: iovecs, headers, count: 0 }
    }
}

impl ReceiveBatch {
    /// Receives from a non-blocking socket, at most [`BATCH`] datagrams, and returns their number.
    /// Replaces the previous batch. IPv4 peers of a dual-stack socket are reported with IPv4
    /// addresses.
    ///
    /// # Errors
    ///
    /// Returns the errors of `recvmmsg(2)`, except that no data is `Ok(0)`.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // The kernel has overwritten the lengths of the addresses and of the control messages.
        for header in self.headers.iter_mut().take(std::mem::take(&mut self.count)) {
            header.msg_hdr.msg_namelen = ADDRESS_MAX;
            header.msg_hdr.msg_controllen = CONTROL_SIZE as _;
        }
        // SAFETY: `heads` has BATCH entries, each pointing to an iovec, a name, a control message
        // and a buffer that live as long as `self` and are not accessed otherwise during the call;
        // no timeout is passed.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        self.count = received;
        if self.headers.first().is_some_and(has_arrival) {
            self.received_at = wall_clock();
        }
        Ok(received)
    }

    /// The datagrams of the last [`ReceiveBatch::receive`], without those that were too long.
    pub fn datagrams(&self) -> impl Iterator<Item = ReceivedDatagram<'_>> {
        let buffers = self.bytes.chunks_exact(DATAGRAM_MAX);
        let entries = buffers.zip(&self.addresses).zip(&self.arrivals).zip(&self.headers);
        entries.take(self.count).filter_map(|(((buffer, address), arrival), header)| {
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let from =
                (!cut).then(|| socket_addr(address, header.msg_hdr.msg_namelen)).flatten()?;
            let bytes = buffer.get(..header.msg_len as usize)?;
            Some(ReceivedDatagram { from, bytes, waited: self.waited(header, arrival) })
        })
    }

    /// Returns how long a datagram has waited. Zero if the wall clock was set back in the meantime.
    fn waited(&self, header: &libc::mmsghdr, arrival: &ArrivalMessage) -> Duration {
        let ArrivalMessage { header: control, at } = arrival;
        let is_arrival = has_arrival(header)
            && (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS);
        if !is_arrival {
            return Duration::ZERO;
        }
        // The limit applies if the wall clock was set forward.
        self.received_at.saturating_sub(since_epoch(at)).min(WAITED_MAX)
    }
}

/// Returns the time of the clock by which the kernel records arrivals.
fn wall_clock() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Duration::try_from(now).unwrap_or_default()
}

fn since_epoch(time: &libc::timespec) -> Duration {
    let (secs, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(secs.unwrap_or_default(), nanos.unwrap_or_default())
}

fn has_arrival(header: &libc::mmsghdr) -> bool {
    header.msg_hdr.msg_controllen >= CONTROL_SIZE as _
}

/// Makes the kernel record when each datagram arrives, so that [`ReceivedDatagram::waited`] is
/// known. Without effect if the system does not support it.
pub fn timestamp_arrivals(socket: &UdpSocket) {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one c_int that lives through the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

fn socket_addr(address: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    // SAFETY: socket2's storage is a transparent wrapper of this type; the kernel filled `name`
    // with an address of `length` bytes of the socket's family.
    let addr = unsafe {
        SockAddr::new(std::ptr::from_ref(address).cast::<SockAddrStorage>().read(), length)
    };
    let addr = addr.as_socket()?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}

/// Sends datagrams, [`BATCH`] per system call, and returns the number sent. A datagram that cannot
/// be sent is skipped. If the socket's buffer is full the rest is dropped, because late audio is
/// useless.
pub fn send_all<'a>(
    socket: &UdpSocket,
    to_v6: bool,
    datagrams: impl IntoIterator<Item = (SocketAddr, &'a [u8])>,
) -> usize {
    let mut datagrams = datagrams.into_iter();
    // Initialised only for actual datagrams, because most batches are small.
    let mut addresses = [const { MaybeUninit::<SockAddr>::uninit() }; BATCH];
    let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let mut sent = 0;
    loop {
        let mut count = 0;
        for (((header, iovec), address), (to, bytes)) in
            headers.iter_mut().zip(&mut iovecs).zip(&mut addresses).zip(datagrams.by_ref())
        {
            // The kernel only reads through these pointers; the bytes outlive this call (`'a`).
            let iovec = iovec.write(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
            let address = address.write(SockAddr::from(family(to, to_v6)));
            // SAFETY: a plain C struct for which all zeroes is a valid value.
            let header = header.write(unsafe { zeroed() });
            header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = address.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        if count == 0 {
            return sent;
        }
        let (mut done_count, first) = (0, headers.as_mut_ptr().cast::<libc::mmsghdr>());
        while done_count < count {
            // SAFETY: the first `count` entries are initialised; their names, iovecs and buffers
            // live until the call returns.
            let n = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    first.add(done_count),
                    (count - done_count) as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            done_count += match usize::try_from(n) {
                Ok(n) => {
                    sent += n;
                    n
                }
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => 0,
                    e if e.kind() == io::ErrorKind::WouldBlock
                        || e.raw_os_error() == Some(libc::ENOBUFS) =>
                    {
                        return sent;
                    }
                    _ => 1,
                },
            };
        }
    }
}

/// Returns the destination in the family of the socket. Dual-stack sockets send to IPv4-mapped
/// addresses.
fn family(to: SocketAddr, v6: bool) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(v4) if v6 => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
        _ => to,
    }
}

/// Enlarges the socket buffers. The system's limit is exceeded if that is permitted.
pub fn enlarge_buffers(socket: &UdpSocket, bytes: usize) {
    let Ok(size) = libc::c_int::try_from(bytes) else { return };
    for (force, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        for option in [force, plain] {
            // SAFETY: the option's value is one c_int that lives through the call.
            let status = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    std::ptr::from_ref(&size).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if status == 0 {
                break;
            }
        }
    }
}

/// Reports which of many sockets are readable.
pub struct PollSet(OwnedFd);

impl AsFd for PollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PollSet {
    /// Creates an empty set.
    ///
    /// # Errors
    ///
    /// Returns the errors of `epoll_create1(2)`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and not owned by anything else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds a socket with a token. Closing the socket removes it.
    ///
    /// # Errors
    ///
    /// Returns the errors of `epoll_ctl(2)`.
    pub fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: both descriptors are open; `event` lives through the call.
        let status = unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_fd().as_raw_fd(),
                &raw mut event,
            )
        };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Stores the tokens of readable sockets in `ready` without waiting. At most [`BATCH`] are
    /// returned per call.
    pub fn ready(&self, ready: &mut Vec<u64>) {
        let mut events: [MaybeUninit<libc::epoll_event>; BATCH] =
            [const { MaybeUninit::uninit() }; BATCH];
        // SAFETY: `events` has space for BATCH events; the call does not wait.
        let n = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr().cast(),
                BATCH as libc::c_int,
                0,
            )
        };
        let filled = usize::try_from(n).unwrap_or_default();
        for event in events.iter().take(filled) {
            // SAFETY: the kernel initialised the first `n` events.
            ready.push(unsafe { event.assume_init_ref() }.u64);
        }
    }
}

/// Returns the addresses of the interfaces that are up, without link-local ones, loopback last.
///
/// # Errors
///
/// Returns the errors of `getifaddrs(3)`.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: fills `first` with a list that is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = first;
    // SAFETY: `at` walks the list of getifaddrs; its nodes live until freeifaddrs.
    while let Some(node) = unsafe { at.as_ref() } {
        at = node.ifa_next;
        let up = node.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
        // SAFETY: a non-null ifa_addr points to a sockaddr of the length of its family.
        let ip = unsafe {
            node.ifa_addr.as_ref().and_then(|address| match i32::from(address.sa_family) {
                libc::AF_INET => {
                    let v4 = node.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
                }
                libc::AF_INET6 => {
                    let v6 = node.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
                }
                _ => None,
            })
        };
        let usable = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        found.extend(ip.filter(|ip| up && usable(ip)));
    }
    // SAFETY: the list came from getifaddrs and is no longer used.
    unsafe { libc::freeifaddrs(first) };
    found.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::{PollSet, ReceiveBatch, interface_addresses, send_all, timestamp_arrivals};
    use model::Clock;

    fn bound(at: &str) -> UdpSocket {
        UdpSocket::bind(at).expect("bind")
    }

    fn borrowed(datagrams: &[(SocketAddr, Vec<u8>)]) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        datagrams.iter().map(|(to, bytes)| (*to, bytes.as_slice()))
    }

    /// Waits up to five seconds for a datagram.
    fn wait(socket: &UdpSocket) {
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        socket.peek_from(&mut [0; 1]).expect("a datagram within five seconds");
    }

    #[test]
    fn sends_and_receives_more_than_one_batch_in_order() {
        let (a, b) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let to = b.local_addr().expect("address");
        let sent: Vec<(SocketAddr, Vec<u8>)> =
            (0..150u8).map(|n| (to, vec![n; usize::from(n) + 1])).collect();
        assert_eq!(send_all(&a, false, borrowed(&sent)), 150);
        let mut inbox = ReceiveBatch::default();
        let mut received = Vec::new();
        while received.len() < 150 {
            wait(&b);
            inbox.receive(&b).expect("receive");
            for datagram in inbox.datagrams() {
                assert_eq!(datagram.from, a.local_addr().expect("address"));
                assert_eq!(datagram.waited, Duration::ZERO, "no timestamps");
                received.push(datagram.bytes.to_vec());
            }
        }
        assert_eq!(received, sent.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
        assert_eq!(inbox.receive(&b).expect("no data is not an error"), 0);
    }

    #[test]
    fn skips_unsendable_and_oversized_datagrams() {
        let (a, b) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let to = b.local_addr().expect("address");
        let nowhere: SocketAddr = "255.255.255.255:9".parse().expect("address");
        let sent = vec![(to, vec![1]), (nowhere, vec![2]), (to, vec![3; 4_000]), (to, vec![4])];
        assert_eq!(send_all(&a, false, borrowed(&sent)), 3);
        wait(&b);
        let mut inbox = ReceiveBatch::default();
        let mut received = Vec::new();
        while received.last() != Some(&vec![4]) {
            wait(&b);
            inbox.receive(&b).expect("receive");
            received.extend(inbox.datagrams().map(|datagram| datagram.bytes.to_vec()));
        }
        assert_eq!(received, [vec![1], vec![4]]);
    }

    #[test]
    fn reports_how_long_a_datagram_has_waited() {
        let (a, b) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        timestamp_arrivals(&b);
        let to = b.local_addr().expect("address");
        let mut inbox = ReceiveBatch::default();
        // The kernel may begin to record arrivals a little later.
        let begun = Clock::real().now();
        loop {
            assert_eq!(send_all(&a, false, [(to, &[1][..])]), 1);
            wait(&b);
            let arrived = Clock::real().now();
            while Clock::real().now() - arrived < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
            inbox.receive(&b).expect("receive");
            let waited = inbox.datagrams().next().expect("a datagram").waited;
            if waited >= Duration::from_millis(5) {
                return;
            }
            assert!(Clock::real().now() - begun < Duration::from_secs(20), "{waited:?}");
        }
    }

    #[test]
    fn reports_readable_sockets() {
        let (a, b, c) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let set = PollSet::new().expect("epoll");
        set.add(&a, 7).expect("add");
        set.add(&b, 8).expect("add");
        let mut ready = Vec::new();
        set.ready(&mut ready);
        assert!(ready.is_empty());
        c.send_to(&[1], b.local_addr().expect("address")).expect("send");
        wait(&b);
        set.ready(&mut ready);
        assert_eq!(ready, [8]);
    }

    #[test]
    fn a_dual_stack_socket_serves_ipv4() {
        let Ok(six) = UdpSocket::bind("[::]:0") else { return };
        let four = bound("127.0.0.1:0");
        let to = four.local_addr().expect("address");
        assert_eq!(send_all(&six, true, [(to, &[1][..])]), 1);
        wait(&four);
        let (_, from) = four.recv_from(&mut [0; 8]).expect("receive");
        four.send_to(&[2], from).expect("send");
        wait(&six);
        let mut inbox = ReceiveBatch::default();
        inbox.receive(&six).expect("receive");
        assert_eq!(
            inbox.datagrams().map(|d| (d.from, d.bytes.to_vec())).collect::<Vec<_>>(),
            [(to, vec![2])]
        );
    }

    #[test]
    fn finds_interface_addresses() {
        let all = interface_addresses().expect("getifaddrs");
        assert!(!all.is_empty());
        let first_loopback = all.iter().position(|ip| ip.is_loopback()).unwrap_or(all.len());
        assert!(all.iter().skip(first_loopback).all(|ip| ip.is_loopback()), "loopback last");
    }
}
