//! Media: processor time of a live call that plays a prompt, against a thread that receives, opens, seals and sends
//! the same packets in batches and does nothing else; and how soon the caller hears something.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use offhook::clock::Clock;
use offhook::ffi::sockets::{Inbox, PollSet, enlarge_buffers, send_all};

use super::load::{self, Wanted};
use super::{World, asked, memory, say};

/// Packets are measured over so long.
const MEASURED: Duration = Duration::from_secs(10);
/// The shards' own beat: legs are spread over four of them.
const TICK: Duration = Duration::from_millis(5);
const SLOTS: usize = 4;
/// Opus in a prompt's packet, on average.
const PAYLOAD: usize = 60;
const HEADER: usize = 12;

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let calls = asked("OFFHOOK_BENCH_MEDIA", 100);
    let world = World::new().await?;
    let folder = tempfile::tempdir()?;
    let node = memory::start(&world, folder.path(), 3_000).await?;
    let wanted = Wanted { rate: 20.0, calls, hold_s: 2.0, media: true };
    let summary = load::run(&world.client, world.sim.url(), &node.url, Wanted { calls: 40, ..wanted }).await?;
    let arriving = Duration::from_secs_f64(calls as f64 / wanted.rate + 3.0);
    let live = load::run(
        &world.client,
        world.sim.url(),
        &node.url,
        Wanted { hold_s: (arriving + MEASURED).as_secs_f64() + 2.0, ..wanted },
    );
    let look = async {
        tokio::time::sleep(arriving).await;
        let before = node.process.cpu();
        tokio::time::sleep(MEASURED).await;
        (node.process.cpu_since(&before), node.process.cpu_since_of(&before, "media"))
    };
    let (live, (ours, threads)) = tokio::join!(live, look);
    live?;
    let floor_of = |keys| tokio::task::spawn_blocking(move || floor(calls as usize, keys));
    let floor = floor_of(calls as usize).await?.map_err(|e| e.to_string())?;
    let one_key = floor_of(1).await?.map_err(|e| e.to_string())?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / MEASURED.as_secs_f64() / calls as f64;
    say(format_args!(
        "media CPU of a live call, of {calls}: floor {:.0} µs a second, offhook {:.0} µs a second, ratio {:.2} (target 1.4); \
         the media threads alone {:.0} µs, ratio {:.2}; over a floor with one key for all, {:.0} µs, {:.2}",
        each(floor),
        each(ours),
        each(ours) / each(floor),
        each(threads),
        each(threads) / each(floor),
        each(one_key),
        each(ours) / each(one_key)
    ));
    let heard = summary.first_audio_ms;
    say(format_args!(
        "first audio after media is connected: p50 {:.1} ms (target 40), p99 {:.1} ms",
        heard.p50.unwrap_or(f64::NAN),
        heard.p99.unwrap_or(f64::NAN)
    ));
    Ok(())
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A key for each direction of so many calls. Packets of different calls never have the same, which is something to the
/// processor's caches.
fn keys(count: usize) -> Result<Vec<[LessSafeKey; 2]>, Fault> {
    let key = || -> Result<LessSafeKey, Fault> {
        Ok(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| "a key of 16 bytes")?))
    };
    (0..count).map(|_| Ok([key()?, key()?])).collect()
}

fn key_of(keys: &[[LessSafeKey; 2]], call: u32, seals: bool) -> Option<&LessSafeKey> {
    keys.get(call as usize % keys.len().max(1)).map(|pair| &pair[usize::from(seals)])
}

/// An RTP packet of a call, sealed as SRTP's AEAD_AES_128_GCM does (RFC 7714).
fn sealed(keys: &[[LessSafeKey; 2]], call: u32, sequence: u16) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + PAYLOAD + 16);
    packet.extend([0x80, 111]);
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 960).to_be_bytes());
    packet.extend(call.to_be_bytes());
    let mut payload = vec![0x5a; PAYLOAD];
    let head = Aad::from(<[u8; HEADER]>::try_from(packet.as_slice()).unwrap_or_default());
    if let Some(key) = key_of(keys, call, true) {
        let _ = key.seal_in_place_append_tag(nonce(call, sequence), head, &mut payload);
    }
    packet.extend(payload);
    packet
}

fn nonce(call: u32, sequence: u16) -> Nonce {
    let mut nonce = [0; 12];
    nonce[2..6].copy_from_slice(&call.to_be_bytes());
    nonce[10..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Whether it opens.
fn opens(keys: &[[LessSafeKey; 2]], packet: &mut [u8]) -> bool {
    let Some((head, body)) = packet.split_at_mut_checked(HEADER) else { return false };
    let call = u32::from_be_bytes(head[8..12].try_into().unwrap_or_default());
    let sequence = u16::from_be_bytes([head[2], head[3]]);
    let Some(key) = key_of(keys, call, false) else { return false };
    key.open_in_place(nonce(call, sequence), Aad::from(&*head), body).is_ok()
}

/// Processor time of the floor's thread over [`MEASURED`], with so many calls' keys.
fn floor(calls: usize, distinct: usize) -> Result<Duration, Fault> {
    let (ours, peers) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    for socket in [&ours, &peers] {
        socket.set_nonblocking(true)?;
        enlarge_buffers(socket, 4 << 20);
    }
    let (here, there) = (ours.local_addr()?, peers.local_addr()?);
    let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let counted = opened.clone();
    let ended = stop.clone();
    let subject = std::thread::spawn(move || -> Result<(), Fault> {
        let thread = std::fs::read_link("/proc/thread-self")?;
        tell.send(thread)?;
        let (keys, mut inbox, poll) = (keys(distinct)?, Inbox::default(), PollSet::new()?);
        poll.add(&ours, 1)?;
        let mut scratch = Vec::with_capacity(2_048);
        beat(&ended, |slot, sequence| {
            let mut ready = Vec::new();
            poll.ready(&mut ready);
            while let Ok(taken) = inbox.receive(&ours) {
                for (_, datagram) in inbox.datagrams() {
                    scratch.clear();
                    scratch.extend_from_slice(datagram);
                    counted.fetch_add(u64::from(opens(&keys, &mut scratch)), Ordering::Relaxed);
                }
                if taken == 0 {
                    break;
                }
            }
            send_all(&ours, false, lent(&burst(&keys, calls, slot, sequence, there)));
        });
        Ok(())
    });
    let ended = stop.clone();
    let others = std::thread::spawn(move || -> Result<(), Fault> {
        let (keys, mut inbox) = (keys(distinct)?, Inbox::default());
        beat(&ended, |slot, sequence| {
            while inbox.receive(&peers).is_ok_and(|taken| taken > 0) {}
            send_all(&peers, false, lent(&burst(&keys, calls, slot, sequence, here)));
        });
        Ok(())
    });
    let thread = told.recv()?;
    let spent = || -> Option<u64> {
        let stat = std::fs::read_to_string(std::path::Path::new("/proc").join(&thread).join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    std::thread::sleep(Duration::from_secs(1));
    let (before, packets) = (spent(), opened.load(Ordering::Relaxed));
    std::thread::sleep(MEASURED);
    let (after, packets) = (spent(), opened.load(Ordering::Relaxed) - packets);
    stop.store(true, Ordering::Relaxed);
    subject.join().map_err(|_| "the floor's thread panicked")??;
    others.join().map_err(|_| "the peers' thread panicked")??;
    let expected = calls as u64 * 50 * MEASURED.as_secs();
    if packets < expected * 9 / 10 {
        return Err(format!("the floor opened {packets} packets of {expected}").into());
    }
    let nanos = after.zip(before).map(|(after, before)| after - before).ok_or("no processor time told")?;
    Ok(Duration::from_nanos(nanos))
}

/// The packets of the calls whose slot it is.
fn burst(
    keys: &[[LessSafeKey; 2]],
    calls: usize,
    slot: usize,
    sequence: u16,
    to: SocketAddr,
) -> Vec<(SocketAddr, Vec<u8>)> {
    (slot..calls).step_by(SLOTS).map(|call| (to, sealed(keys, call as u32, sequence))).collect()
}

fn lent(burst: &[(SocketAddr, Vec<u8>)]) -> impl Iterator<Item = (SocketAddr, &[u8])> {
    burst.iter().map(|(to, bytes)| (*to, bytes.as_slice()))
}

/// Calls `tick` every 5 ms with its slot and packet number.
fn beat(stop: &AtomicBool, mut tick: impl FnMut(usize, u16)) {
    let clock = Clock::real();
    let (mut due, mut count) = (clock.now(), 0_usize);
    while !stop.load(Ordering::Relaxed) {
        if let Some(wait) = due.checked_duration_since(clock.now()) {
            std::thread::sleep(wait);
        }
        tick(count % SLOTS, (count / SLOTS) as u16);
        count += 1;
        due += TICK;
    }
}
