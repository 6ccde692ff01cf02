//! One leg on its shard: its ICE and DTLS, playback, DTMF, and liveness.
//!
//! The shard calls [`Leg::receive`] for each datagram of the leg, [`Leg::tick`] every 20 ms, and
//! [`Leg::execute`] for commands. Datagrams to send are appended to a [`SendBuffer`]. `leg/path.rs`
//! contains the network side. Sockets and routing belong to `shard`.

mod checks;
mod fetch;
mod path;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use checks::Checks;
use str0m::Rtc;
use str0m::media::Mid;

use super::agent::Homes;
use super::blend::{Beneath, Blend, beneath_of};
use super::bridge::BridgeEnd;
use super::dtls::Keyring;
use super::dtmf;
use super::ear::Ear;
use super::feed::FeedEnd;
use super::inlet::PACKET_TICKS;
use super::layers::Layers;
use super::outbox::Outbox;
use super::player::{PlayItem, Player, Step};
use super::prompt::Frame;
use super::quality::Account;
use super::sdp::TelephoneEvent;
use super::stun;
use super::tap::{TapEnd, Tapped};
use super::tones::InBand;
use super::transport::Transport;
use super::watchdog::{Missing, Watchdog};
use super::{EventSink, LegEvent};
use machine::{Aside, MediaFact, MediaFault, PlayId};
use model::{Digit, Timestamp};
use xml::ast::Beep;

/// RTP clock rate of Opus.
const RTP_CLOCK: u32 = 48_000;
/// Amount of received audio after which the peer of a call that we placed counts as having picked
/// up (docs/reference/meta.md#business-initiated-calls).
const FLOWING_MS: u32 = 500;
/// Maximum number of queued digit commands.
const DIGIT_ORDERS_MAX: usize = 32;
/// Maximum number of taps: recordings, a stream, speech recognition, a room.
const TAPS_MAX: usize = 8;

/// A command from the call.
#[derive(Debug)]
pub(super) enum LegOrder {
    Begin,
    Open,
    Play(PlayId, Vec<PlayItem>),
    /// Plays over what `Play` plays, or in place of it.
    Aside(PlayId, Aside, Vec<PlayItem>),
    Stop(PlayId),
    SendDigits(PlayId, String),
    Listen(bool),
    Beep(Option<Beep>),
    Bridge(Box<BridgeEnd>),
    Part,
    Tap(TapEnd),
    Feed(Box<FeedEnd>),
    Room(Box<FeedEnd>),
    /// Nobody hears the peer; its keys still count.
    Mute(bool),
    Close,
}

/// Counters of a leg, written by its shard and readable from any thread.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rtp_in: AtomicU64,
    pub(super) rtp_out: AtomicU64,
    /// Updated every second.
    pub(super) quality: Account,
}

/// Everything needed to create a [`Leg`].
pub(super) struct Making {
    pub(super) rtc: Rtc,
    pub(super) mid: Mid,
    /// Receives the SRTP keys when the DTLS handshake is complete.
    pub(super) keys: Keyring,
    pub(super) cname: String,
    pub(super) ssrc: u32,
    pub(super) sink: EventSink,
    pub(super) counters: Arc<Counters>,
    pub(super) homes: Homes,
    /// Local ICE password, used by incoming requests, and remote one, used by responses.
    pub(super) pwd: String,
    pub(super) remote_pwd: String,
    /// Whether we send the ICE checks, because the offer was ICE-lite.
    pub(super) controlling: bool,
    /// Whether the offer was ours. Then [`MediaFact::Flowing`] is reported.
    pub(super) offered: bool,
    /// Whether we are the DTLS client.
    pub(super) dtls_client: bool,
    pub(super) opus_pt: u8,
    pub(super) telephone_events: Vec<TelephoneEvent>,
    pub(super) digits_out: Option<TelephoneEvent>,
    pub(super) remote_ssrc: Option<u32>,
    /// Milliseconds of audio in the peer's packets.
    pub(super) packet_ms: u32,
    /// Initial sequence number, before any rollover, and initial timestamp.
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) silence: Frame,
    pub(super) media_dead: Duration,
    pub(super) now: Instant,
    /// Wall-clock time at `now`.
    pub(super) wall: Timestamp,
}

/// A leg. Fields that every packet needs come first, so that they share few cache lines;
/// `leg/prefetch.rs` depends on this order.
#[repr(C)]
pub(super) struct Leg {
    /// The RTP path, once connected. `None` if str0m carries the RTP.
    transport: Option<Box<Transport>>,
    counters: Arc<Counters>,
    last_valid: Instant,
    /// Destination of DTLS and RTP. `None` before the first packet was sent.
    path: Option<SocketAddr>,
    /// When an authentic packet last arrived from there.
    path_heard: Instant,
    /// RTP packets in and out that the shard has not added to its counters yet.
    uncounted: (u64, u64),
    /// Packets left until half a second of the peer's audio has arrived. `None` if that is not
    /// reported.
    flowing_in: Option<u32>,
    timestamp: u32,
    opus_pt: u8,
    begun: bool,
    open: bool,
    ice_up: bool,
    connected: bool,
    heard: bool,
    /// A fault was reported; no further event follows.
    lost: bool,
    /// Whether the peer is muted.
    muted: bool,
    /// The last packet contained audio, so the next one needs no marker.
    talking: bool,
    /// This tick belongs to a digit or the pause after it; playback waits.
    keyed: bool,
    /// DTMF as tones, if no telephone-event was negotiated.
    in_band: Option<Box<InBand>>,
    /// Present while voice or a beep is to be detected.
    ear: Option<Box<Ear>>,
    /// Connects this leg with another one.
    bridge: Option<Box<BridgeEnd>>,
    /// Audio of a room.
    room: Option<Box<FeedEnd>>,
    /// Other live audio for the peer, and the mixer that adds it to the rest.
    feed: Option<Box<FeedEnd>>,
    blend: Option<Box<Blend<2>>>,
    /// Audio over the player's, if there is any.
    layers: Option<Box<Layers>>,
    /// Copies of what passes.
    taps: Vec<TapEnd>,
    /// Next timeout of str0m.
    wake: Instant,
    sequence: u64,
    player: Option<Player>,
    /// Queued digits, those being sent first.
    sending: VecDeque<(PlayId, dtmf::Sender)>,
    digits: Vec<Digit>,
    receiver: dtmf::Receiver,
    silence: Frame,
    media_dead: Duration,
    /// Present once the leg is open.
    watchdog: Option<Watchdog>,

    /// First of the rarely used fields. Boxed, because it is large.
    rtc: Box<Rtc>,
    mid: Mid,
    keys: Keyring,
    cname: String,
    ssrc: u32,
    /// A point in time, and the wall-clock time then.
    epoch: (Instant, Timestamp),
    sink: EventSink,
    homes: Homes,
    pwd: String,
    remote_pwd: String,
    controlling: bool,
    dtls_client: bool,
    telephone_events: Vec<u8>,
    digits_out: Option<TelephoneEvent>,
    /// NTP time of the peer's latest sender report.
    last_report: Option<SystemTime>,
    ssrcs: VecDeque<u32>,
    /// An unknown SSRC whose first packet is being tried.
    trial: Option<u32>,
    /// RTP ticks for which nothing was sent yet. Negative after a packet longer than a tick.
    owed: i64,
    /// Retransmission of our checks until connected. `None` if the peer sends the checks.
    checks: Option<Box<Checks>>,
}

impl Leg {
    pub(super) fn new(m: Making) -> Self {
        Self {
            rtc: Box::new(m.rtc),
            mid: m.mid,
            keys: m.keys,
            transport: None,
            cname: m.cname,
            ssrc: m.ssrc,
            epoch: (m.now, m.wall),
            sink: m.sink,
            counters: m.counters,
            homes: m.homes,
            pwd: m.pwd,
            remote_pwd: m.remote_pwd,
            controlling: m.controlling,
            dtls_client: m.dtls_client,
            media_dead: m.media_dead,
            opus_pt: m.opus_pt,
            telephone_events: m.telephone_events.iter().map(|t| t.pt).collect(),
            digits_out: m.digits_out,
            silence: m.silence,
            begun: false,
            open: false,
            ice_up: false,
            connected: false,
            heard: false,
            flowing_in: m.offered.then(|| FLOWING_MS.div_ceil(m.packet_ms.max(1))),
            lost: false,
            wake: m.now,
            last_valid: m.now,
            last_report: None,
            path: None,
            path_heard: m.now,
            ssrcs: m.remote_ssrc.into_iter().collect(),
            trial: None,
            uncounted: (0, 0),
            sequence: u64::from(m.sequence),
            timestamp: m.timestamp,
            player: None,
            talking: false,
            layers: None,
            sending: VecDeque::new(),
            keyed: false,
            receiver: dtmf::Receiver::default(),
            digits: Vec::new(),
            in_band: m.digits_out.is_none().then(|| Box::new(InBand::new())),
            ear: None,
            bridge: None,
            room: None,
            feed: None,
            blend: None,
            taps: Vec::new(),
            owed: 0,
            checks: m.controlling.then(Box::default),
            muted: false,
            watchdog: None,
        }
    }

    /// The peer's address for DTLS and RTP, once the leg is connected.
    pub(super) fn settled(&self) -> Option<SocketAddr> {
        self.path.filter(|_| self.connected)
    }

    /// Returns whether ICE or DTLS is in progress.
    pub(super) fn is_coming_up(&self) -> bool {
        self.begun && !self.connected && !self.lost
    }

    /// Returns whether a DTLS handshake is in progress.
    pub(super) fn is_shaking_hands(&self) -> bool {
        self.ice_up && !self.connected && !self.lost
    }

    /// Returns whether the peer is known to use this SSRC.
    pub(super) fn knows(&self, ssrc: u32) -> bool {
        self.ssrcs.contains(&ssrc)
            || self.transport.as_ref().is_some_and(|transport| transport.knows(ssrc))
    }

    /// Number of RTP packets received that authenticated.
    pub(super) fn heard_so_far(&self) -> u64 {
        self.counters.rtp_in.load(Ordering::Relaxed)
    }

    /// Returns whether a STUN request was made with our password.
    pub(super) fn authenticates_request(&self, request: &[u8]) -> bool {
        stun::is_authentic(request, &self.pwd)
    }

    /// Returns whether a STUN response was made with the peer's password.
    pub(super) fn authenticates_response(&self, response: &[u8]) -> bool {
        stun::is_authentic(response, &self.remote_pwd)
    }

    /// Returns the RTP packets in and out since the last call.
    pub(super) fn counted(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.uncounted)
    }

    /// Executes a command. After `Close` the leg must be dropped.
    pub(super) fn order(&mut self, now: Instant, order: LegOrder, out: &mut Outbox) {
        match order {
            LegOrder::Begin => self.begun = true,
            LegOrder::Open => {
                self.open = true;
                if let Some(checks) = &mut self.checks {
                    checks.open(now);
                }
                self.watchdog.get_or_insert(Watchdog::new(now));
            }
            LegOrder::Play(play, items) => self.player = Some(Player::new(play, items)),
            LegOrder::Stop(play) => {
                self.player.take_if(|p| p.play() == play);
                self.sending.retain(|(digits, _)| *digits != play);
                if let Some(layers) = &mut self.layers {
                    layers.stop(play);
                }
            }
            LegOrder::Aside(play, aside, items) => {
                self.layers.get_or_insert_default().play(play, &aside, items)
            }
            LegOrder::SendDigits(play, digits) if self.sending.len() < DIGIT_ORDERS_MAX => {
                let clock = self.digits_out.map_or(RTP_CLOCK, |t| t.clock);
                self.sending.push_back((play, dtmf::Sender::new(&digits, clock)));
            }
            // Too many; report completion, so that the caller continues.
            LegOrder::SendDigits(play, _) => self.tell(LegEvent::DigitsSent(play)),
            LegOrder::Listen(on) => self.listen(|ear| ear.listen(on)),
            LegOrder::Beep(how) => self.listen(|ear| ear.await_beep(how)),
            LegOrder::Bridge(end) => {
                self.bridge = Some(end);
                self.owed = 0;
            }
            LegOrder::Part => self.bridge = None,
            LegOrder::Feed(end) => self.feed = Some(end),
            LegOrder::Room(end) => self.room = Some(end),
            LegOrder::Tap(tap) if self.taps.len() < TAPS_MAX => self.taps.push(tap),
            // Too many; dropping the end ends this tap immediately.
            LegOrder::Tap(_) => {}
            LegOrder::Mute(on) => self.muted = on,
            LegOrder::Close => {
                self.lost = true;
                self.say_goodbye(now, out);
            }
        }
    }

    /// Changes what is detected. The detector is dropped if nothing is left to detect.
    fn listen(&mut self, change: impl FnOnce(&mut Ear)) {
        let mut ear = self.ear.take().unwrap_or_else(|| Box::new(Ear::new()));
        change(&mut ear);
        self.ear = Some(ear).filter(|ear| ear.is_of_use());
    }

    /// Runs the leg's 20 ms tick: timers, and the packets that are due.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Outbox) {
        let mut digits = std::mem::take(&mut self.digits);
        self.receiver.tick(now, &mut digits);
        self.tell_digits(digits);
        if let Some(ear) = &mut self.ear {
            let told = ear.tick(now);
            told.into_iter().flatten().for_each(|voice| self.tell(LegEvent::Voice(voice)));
        }
        if self.connected && now.saturating_duration_since(self.last_valid) >= self.media_dead {
            self.lose(MediaFault::Silent);
        }
        self.watch(now);
        if self.connected && self.open {
            if !self.write_bridged(now, out) {
                self.write_packet(now, out);
            }
            self.copy(&Tapped::Tick);
            self.look_after(now, out);
        } else if self.begun || !self.controlling {
            if now >= self.wake {
                self.drive(now, out);
            }
            if let Some((to, check)) =
                self.checks.as_mut().and_then(|checks| checks.copy(now, self.wake))
            {
                out.push(to, check);
            }
        }
    }

    /// Reports the step that audio is missing at, if it is time to.
    fn watch(&mut self, now: Instant) {
        let missing = match (self.ice_up, self.connected, self.heard) {
            (_, _, true) => None,
            (_, true, false) => Some(Missing::Packet),
            (true, false, false) => Some(Missing::Handshake),
            (false, false, false) => Some(Missing::Check),
        };
        if let Some((missing, waited)) =
            self.watchdog.as_mut().and_then(|dog| dog.look(now, missing))
        {
            self.tell(LegEvent::Missing { missing, waited, checking: self.controlling });
        }
    }

    /// Sends one packet: of a digit, of audio, or of silence.
    fn write_packet(&mut self, now: Instant, out: &mut Outbox) {
        let now_timestamp = self.timestamp;
        self.timestamp = self.timestamp.wrapping_add(PACKET_TICKS);
        let (pt, timestamp, payload, marker) = match self.digit_packet(now_timestamp) {
            Some((pt, payload, timestamp, marker)) => {
                self.talking = false;
                (pt, timestamp, payload, marker)
            }
            None => {
                let frame = self.frame();
                if let Some(frame) = &frame {
                    self.copy_sent(frame);
                }
                let marker = frame.is_some() && !self.talking;
                self.talking = frame.is_some();
                (self.opus_pt, now_timestamp, frame.unwrap_or_else(|| self.silence.clone()), marker)
            }
        };
        // The timestamp of an event is that of its start. Its time must match, or sender reports
        // would be wrong.
        let behind =
            Duration::from_micros(u64::from(now_timestamp.wrapping_sub(timestamp)) * 1_000 / 48);
        let at = now.checked_sub(behind).unwrap_or(now);
        self.write(at, (pt, marker), timestamp, payload, out);
    }

    /// Sends what the bridge has for this tick, or silence. Returns `false` without sending if
    /// there is no bridge, or if other audio has precedence or must be mixed with it. Packets of
    /// other lengths than a tick are sent when their time has come.
    fn write_bridged(&mut self, now: Instant, out: &mut Outbox) -> bool {
        let Some(bridge) = &mut self.bridge else { return false };
        bridge.take_in();
        let is_spoken_over =
            self.layers.is_some() || self.feed.as_ref().is_some_and(|feed| feed.has_more());
        if self.player.is_some() || is_spoken_over || !self.sending.is_empty() {
            self.owed = 0;
            return false;
        }
        self.blend = None;
        self.owed += i64::from(PACKET_TICKS);
        while self.owed > 0 {
            let passed = self.bridge.as_mut().and_then(|bridge| bridge.next());
            let (payload, ticks) = match passed {
                Some(passed) => {
                    // A loss stays a loss in our stream, so that the receiving decoder conceals it.
                    let (ticks_lost, packets_lost) = passed.lost;
                    self.sequence += packets_lost;
                    self.timestamp = self.timestamp.wrapping_add(ticks_lost);
                    self.owed -= i64::from(ticks_lost);
                    (Some(passed.payload), passed.ticks)
                }
                None if self.owed >= i64::from(PACKET_TICKS) => (None, PACKET_TICKS),
                None => break,
            };
            if let Some(payload) = &payload {
                self.copy_sent(payload);
            }
            let marker = payload.is_some() && !self.talking;
            self.talking = payload.is_some();
            let timestamp = self.timestamp;
            self.timestamp = timestamp.wrapping_add(ticks);
            self.owed -= i64::from(ticks);
            let payload = payload.unwrap_or_else(|| self.silence.clone());
            self.write(now, (self.opus_pt, marker), timestamp, payload, out);
        }
        true
    }

    /// Returns the packet of the current digit for this tick, or `None` if the tick is free for
    /// audio.
    fn digit_packet(&mut self, timestamp: u32) -> Option<(u8, Frame, u32, bool)> {
        self.keyed = false;
        let (play, sender) = self.sending.front_mut()?;
        let (play, step) = (*play, sender.step(timestamp));
        self.keyed = matches!(step, dtmf::Step::Event { .. } | dtmf::Step::Pause);
        if let Some(sounds) = &mut self.in_band
            && self.keyed
        {
            return sounds.frame(step).map(|frame| (self.opus_pt, frame, timestamp, false));
        }
        match step {
            dtmf::Step::Event { payload, timestamp, marker } => {
                Some((self.digits_out?.pt, Frame::from(payload), timestamp, marker))
            }
            dtmf::Step::Pause | dtmf::Step::Wait => None,
            dtmf::Step::Done => {
                self.sending.pop_front();
                self.tell(LegEvent::DigitsSent(play));
                None
            }
        }
    }

    /// Returns the next audio frame. A digit holds playback up, a wait between digits does not.
    fn frame(&mut self) -> Option<Frame> {
        if self.keyed {
            return None;
        }
        let own = self.own_frame();
        let Some(layers) = &mut self.layers else { return own };
        let sink = &self.sink;
        let frame = layers.frame(own, |event| sink(event));
        if layers.is_empty() {
            self.layers = None;
        }
        frame
    }

    /// Returns the next frame of the leg's own audio: the playlist, the bridge, the room or the
    /// feed. They advance even while a layer replaces them.
    fn own_frame(&mut self) -> Option<Frame> {
        let room = fed_frame(&mut self.room);
        if self.player.is_some() {
            let played = self.played_frame();
            return room.filter(|frame| **frame != *self.silence).or(played);
        }
        let fed = fed_frame(&mut self.feed);
        let beneath = match &mut self.bridge {
            Some(bridge) => match beneath_of(bridge, &mut self.blend) {
                Beneath::Frame(frame) => Some(frame),
                Beneath::Blend(blend) => return Some(blend.of([None, fed.as_ref()])),
                Beneath::Nothing => None,
            },
            None => room,
        };
        if self.feed.is_none() {
            self.blend = None;
        }
        match (beneath, fed) {
            (Some(beneath), Some(fed)) if *beneath != *self.silence => {
                Some(self.blend.get_or_insert_default().of([Some(&beneath), Some(&fed)]))
            }
            (beneath, fed) => fed.or(beneath),
        }
    }

    fn played_frame(&mut self) -> Option<Frame> {
        let sink = &self.sink;
        match self.player.as_mut()?.step(|event| sink(event)) {
            Step::Frame(frame) => Some(frame),
            Step::Silence => None,
            Step::Over => {
                self.player = None;
                None
            }
        }
    }

    /// Copies an entry to the taps.
    fn copy(&mut self, entry: &Tapped) {
        if !self.taps.is_empty() {
            self.taps.retain(|tap| tap.pass(entry));
        }
    }

    fn copy_sent(&mut self, frame: &Frame) {
        if !self.taps.is_empty() {
            self.copy(&Tapped::Sent(frame.clone()));
        }
    }

    fn tell_digits(&mut self, mut digits: Vec<Digit>) {
        for digit in digits.drain(..) {
            self.tell(LegEvent::Digit(digit));
        }
        self.digits = digits;
    }

    fn lose(&mut self, fault: MediaFault) {
        if !self.lost {
            if fault == MediaFault::Fingerprint {
                let (missing, waited) = (Missing::Fingerprint, Duration::ZERO);
                self.tell(LegEvent::Missing { missing, waited, checking: self.controlling });
            }
            self.tell(LegEvent::Fact(MediaFact::Lost { fault }));
            self.lost = true;
        }
    }

    fn tell(&self, event: LegEvent) {
        if !self.lost {
            (self.sink)(event);
        }
    }
}

/// Takes the next frame of a feed, and drops the feed if its sender is gone.
fn fed_frame(feed: &mut Option<Box<FeedEnd>>) -> Option<Frame> {
    let (frame, goes_on) = feed.as_mut()?.next();
    if !goes_on {
        *feed = None;
    }
    frame
}

/// Only the shard writes, so no atomic read-modify-write is needed.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
