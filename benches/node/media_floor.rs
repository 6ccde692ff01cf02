//! The lower bound for media: one thread in its own process that receives, decrypts, encrypts and
//! sends the packets of all calls in batches. It has no legs, replay window, jitter buffer, STUN,
//! RTCP or reordering.
//!
//! Its peers run in the bench process and are not counted. Like a load's callers, they use one
//! address each and sleep in a task until a packet arrives, decrypt it, and send on their own
//! schedule. Sending to a sleeping task wakes it, and the kernel charges that to the sender.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use media::sockets::{BATCH, PollSet, ReceiveBatch, enlarge_buffers, send_all};
use model::Clock;
use tokio::io::Interest;

use super::process::Process;

/// Number of one-second measurements. The result is their median, so a second with much other load
/// does not count.
pub(crate) const SECONDS: u64 = 11;
/// Warm-up before and pause after the measurement.
const AROUND: Duration = Duration::from_secs(1);
/// The tick of the shards. Legs are spread over four of them.
const TICK: Duration = Duration::from_millis(5);
const SLOTS: usize = 4;
/// Average Opus payload of a prompt's packet, and of a silent caller's packet.
const PROMPT: usize = 60;
const SILENCE: usize = 3;
const HEADER: usize = 12;
const TAG: usize = 16;
const SOCKET_BUFFER: usize = 4 << 20;

pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How the remote side receives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peers {
    /// This number of addresses, assigned to calls in turn. A task per address waits for packets,
    /// as a load's callers do.
    Waiting(usize),
    /// One address that is polled every 5 ms, so that no send wakes a task.
    Passing,
}

/// Parameters of the lower bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    pub(crate) calls: usize,
    /// Number of local ports. Calls of one peer address are spread over them.
    pub(crate) ports: usize,
    pub(crate) peers: Peers,
}

/// Returns the peer address and the local port of a call, both as indices.
fn place(call: usize, addresses: usize, ports: usize) -> (usize, usize) {
    (call % addresses, call / addresses % ports)
}

/// Returns the median processor time per second over [`SECONDS`] measurements.
pub(crate) fn median(mut of: impl FnMut() -> Duration) -> Duration {
    let mut seconds: Vec<Duration> = (0..SECONDS).map(|_| of()).collect();
    seconds.sort_unstable();
    seconds.get(seconds.len() / 2).copied().unwrap_or_default()
}

impl Floor {
    /// Returns the processor time of the child process per second.
    pub(crate) fn measure(self) -> Result<Duration, Fault> {
        let addresses = match self.peers {
            Peers::Waiting(addresses) => addresses.clamp(1, self.calls.max(1)),
            Peers::Passing => 1,
        };
        let sockets: Vec<UdpSocket> =
            (0..addresses).map(|_| socket()).collect::<Result<_, Fault>>()?;
        let theirs: Vec<String> = sockets
            .iter()
            .map(|s| Ok(s.local_addr()?.to_string()))
            .collect::<Result<_, Fault>>()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "media-floor",
            &self.calls.to_string(),
            &self.ports.to_string(),
            &theirs.join(","),
        ]);
        let (mut process, ours) = Process::start(&mut command, true)?;
        let ours: Vec<SocketAddr> = ours.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let (stop, mut threads) = (Arc::new(AtomicBool::new(false)), Vec::new());
        let mut share: Vec<Vec<Peer>> = vec![Vec::new(), Vec::new()];
        for (n, socket) in sockets.into_iter().enumerate() {
            let calls = (0..self.calls).filter(|call| place(*call, addresses, ours.len()).0 == n);
            let calls = calls
                .map(|call| Some((call as u32, *ours.get(place(call, addresses, ours.len()).1)?)));
            let peer = Peer {
                socket: Arc::new(socket),
                calls: calls.collect::<Option<_>>().ok_or("a port for each")?,
            };
            share.get_mut(n % 2).ok_or("two threads")?.push(peer);
        }
        for peers in share.into_iter().filter(|peers| !peers.is_empty()) {
            let (stop, how) = (stop.clone(), self.peers);
            threads.push(std::thread::spawn(move || match how {
                Peers::Waiting(_) => waiting(peers, &stop),
                Peers::Passing => passing(&peers, &stop),
            }));
        }
        std::thread::sleep(AROUND);
        let spent = median(|| {
            let before = process.cpu();
            std::thread::sleep(Duration::from_secs(1));
            process.cpu_since(&before)
        });
        let opened_all = process.0.wait()?.success();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| "a thread of the floor's peers panicked")??;
        }
        opened_all.then_some(spent).ok_or_else(|| "the floor opened too few packets".into())
    }
}

/// Entry point of the child process: prints its addresses, carries the calls while it is measured,
/// and reports whether decryption succeeded.
pub(crate) fn serve(calls: usize, ports: usize, peers: &str) -> Result<(), Fault> {
    let peers: Vec<SocketAddr> = peers.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let sockets: Vec<UdpSocket> = (0..ports).map(|_| socket()).collect::<Result<_, Fault>>()?;
    let poll = PollSet::new()?;
    for (n, socket) in (0_u64..).zip(&sockets) {
        poll.add(socket, n)?;
    }
    let ours: Vec<String> =
        sockets.iter().map(|s| Ok(s.local_addr()?.to_string())).collect::<Result<_, Fault>>()?;
    let keys = Keys::of(calls)?;
    // Indexed by slot and port.
    let due: Vec<Vec<Vec<(u32, SocketAddr)>>> = (0..SLOTS)
        .map(|slot| {
            let of_port = |port| {
                let calls = (slot..calls)
                    .step_by(SLOTS)
                    .map(|call| (call as u32, place(call, peers.len(), ports)));
                let calls = calls.filter(|(_, place)| place.1 == port);
                calls.filter_map(|(call, place)| Some((call, *peers.get(place.0)?))).collect()
            };
            (0..ports).map(of_port).collect()
        })
        .collect();
    super::say(format_args!("{}", ours.join(",")));
    let (mut inbox, mut ready, mut plain, mut out) =
        (ReceiveBatch::default(), Vec::new(), Vec::new(), Out::default());
    let mut opened = 0_u64;
    let ticks = (Duration::from_secs(SECONDS) + AROUND * 2).as_millis() / TICK.as_millis();
    beat(|count| {
        poll.ready(&mut ready);
        for token in ready.drain(..) {
            let Some(socket) = sockets.get(token as usize) else { continue };
            while let Ok(taken) = inbox.receive(socket) {
                opened +=
                    inbox.datagrams().filter(|d| keys.open(d.bytes, &mut plain)).count() as u64;
                if taken < BATCH {
                    break;
                }
            }
        }
        let slot = due.get(count % SLOTS).map(Vec::as_slice).unwrap_or_default();
        for (socket, calls) in sockets.iter().zip(slot).filter(|(_, calls)| !calls.is_empty()) {
            out.send(&keys, socket, calls, (count / SLOTS) as u16, PROMPT);
        }
        (count as u128) < ticks
    });
    let expected = calls as u64 * 50 * (SECONDS + AROUND.as_secs()) * 9 / 10;
    if opened < expected {
        Err(format!("opened {opened} packets of {expected}").into())
    } else {
        Ok(())
    }
}

fn socket() -> Result<UdpSocket, Fault> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    enlarge_buffers(&socket, SOCKET_BUFFER);
    Ok(socket)
}

/// One key per direction and call. Distinct keys matter because they occupy the processor's caches.
struct Keys(Vec<[LessSafeKey; 2]>);

impl Keys {
    fn of(calls: usize) -> Result<Self, Fault> {
        let key = || -> Result<LessSafeKey, Fault> {
            Ok(LessSafeKey::new(
                UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| "a key of 16 bytes")?,
            ))
        };
        Ok(Self((0..calls).map(|_| Ok([key()?, key()?])).collect::<Result<_, Fault>>()?))
    }

    /// Appends an RTP packet of a call, encrypted with SRTP's AEAD_AES_128_GCM (RFC 7714).
    fn seal(&self, call: u32, sequence: u16, payload: usize, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend([0x80, 111]);
        out.extend(sequence.to_be_bytes());
        out.extend((u32::from(sequence) * 960).to_be_bytes());
        out.extend(call.to_be_bytes());
        out.resize(from + HEADER + payload, 0x5a);
        let Some([_, key]) = self.0.get(call as usize) else { return };
        let Some((head, body)) =
            out.get_mut(from..).and_then(|packet| packet.split_at_mut_checked(HEADER))
        else {
            return;
        };
        if let Ok(tag) =
            key.seal_in_place_separate_tag(nonce(call, sequence), Aad::from(&*head), body)
        {
            out.extend_from_slice(tag.as_ref());
        }
    }

    /// Decrypts a packet into `plain`. Returns false if authentication fails.
    fn open(&self, packet: &[u8], plain: &mut Vec<u8>) -> bool {
        let Some((head, body)) = packet.split_at_checked(HEADER) else { return false };
        let Some((sealed, tag)) = body.split_at_checked(body.len().saturating_sub(TAG)) else {
            return false;
        };
        let call = u32::from_be_bytes(head[8..12].try_into().unwrap_or_default());
        let sequence = u16::from_be_bytes([head[2], head[3]]);
        let Some([key, _]) = self.0.get(call as usize) else { return false };
        plain.resize(sealed.len(), 0);
        key.open_separate_gather(nonce(call, sequence), Aad::from(head), sealed, tag, plain).is_ok()
    }
}

fn nonce(call: u32, sequence: u16) -> Nonce {
    let mut nonce = [0; 12];
    nonce[2..6].copy_from_slice(&call.to_be_bytes());
    nonce[10..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Reusable buffers for outgoing packets.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    ends: Vec<(SocketAddr, usize)>,
}

impl Out {
    fn send(
        &mut self,
        keys: &Keys,
        socket: &UdpSocket,
        calls: &[(u32, SocketAddr)],
        sequence: u16,
        payload: usize,
    ) {
        self.bytes.clear();
        self.ends.clear();
        for (call, to) in calls {
            keys.seal(*call, sequence, payload, &mut self.bytes);
            self.ends.push((*to, self.bytes.len()));
        }
        let datagrams = self.ends.iter().scan(0, |from, (to, end)| {
            Some((*to, self.bytes.get(std::mem::replace(from, *end)..*end).unwrap_or_default()))
        });
        send_all(socket, false, datagrams);
    }
}

/// Calls `tick` with a counter every 5 ms until it returns false.
fn beat(mut tick: impl FnMut(usize) -> bool) {
    let clock = Clock::real();
    let (mut due, mut count) = (clock.now(), 0_usize);
    loop {
        if let Some(wait) = due.checked_duration_since(clock.now()) {
            std::thread::sleep(wait);
        }
        if !tick(count) {
            return;
        }
        count += 1;
        due += TICK;
    }
}

/// A peer address with its calls and their destinations.
#[derive(Clone)]
struct Peer {
    socket: Arc<UdpSocket>,
    calls: Vec<(u32, SocketAddr)>,
}

impl Peer {
    /// Returns the calls by slot.
    fn due(&self) -> [Vec<(u32, SocketAddr)>; SLOTS] {
        std::array::from_fn(|slot| self.calls.iter().skip(slot).step_by(SLOTS).copied().collect())
    }

    fn last_call(&self) -> usize {
        self.calls.iter().map(|(call, _)| *call as usize + 1).max().unwrap_or_default()
    }
}

/// Runs a thread of peers that wait for packets, one task each, like `sim::media::relay`.
fn waiting(peers: Vec<Peer>, stop: &Arc<AtomicBool>) -> Result<(), Fault> {
    let keys = Arc::new(Keys::of(peers.iter().map(Peer::last_call).max().unwrap_or_default())?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let count = peers.len().max(1) as u32;
        for (n, peer) in (0_u32..).zip(peers) {
            // Spread the callers' packets over the tick.
            tasks.spawn(wait(peer, keys.clone(), stop.clone(), TICK * n / count));
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    })
}

async fn wait(
    peer: Peer,
    keys: Arc<Keys>,
    stop: Arc<AtomicBool>,
    phase: Duration,
) -> Result<(), Fault> {
    let socket = tokio::net::UdpSocket::from_std(peer.socket.try_clone()?)?;
    tokio::time::sleep(phase).await;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let (due, mut inbox, mut plain, mut out) =
        (peer.due(), ReceiveBatch::default(), Vec::new(), Out::default());
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        tokio::select! {
            _ = tick.tick() => {
                if let Some(calls) = due.get(count % SLOTS).filter(|calls| !calls.is_empty()) {
                    out.send(&keys, &peer.socket, calls, (count / SLOTS) as u16, SILENCE);
                }
                count += 1;
            }
            _ = socket.readable() => loop {
                let taken = socket.try_io(Interest::READABLE, || match inbox.receive(&peer.socket)? {
                    0 => Err(std::io::ErrorKind::WouldBlock.into()),
                    taken => Ok(taken),
                });
                let Ok(taken) = taken else { break };
                inbox.datagrams().for_each(|d| { keys.open(d.bytes, &mut plain); });
                if taken < BATCH {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Polls the peers' sockets every 5 ms and discards the packets.
fn passing(peers: &[Peer], stop: &AtomicBool) -> Result<(), Fault> {
    let keys = Keys::of(peers.iter().map(Peer::last_call).max().unwrap_or_default())?;
    let due: Vec<_> = peers.iter().map(Peer::due).collect();
    let (mut inbox, mut out) = (ReceiveBatch::default(), Out::default());
    beat(|count| {
        for (peer, due) in peers.iter().zip(&due) {
            while inbox.receive(&peer.socket).is_ok_and(|taken| taken > 0) {}
            if let Some(calls) = due.get(count % SLOTS) {
                out.send(&keys, &peer.socket, calls, (count / SLOTS) as u16, SILENCE);
            }
        }
        !stop.load(Ordering::Relaxed)
    });
    Ok(())
}
