//! One leg in its shard: its agent, what it plays, the digits it hears and sends, whether it is still there.
//!
//! Driven from outside: [`Leg::receive`] for each datagram that is its own, [`Leg::tick`] every 20 ms, orders in
//! between. Datagrams to be sent are put into the given list; what comes and goes by the network is `leg/path.rs`.
//! Sockets and routing are `shard`'s.

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
use machine::{Overlay, MediaEvent, MediaFault, PlayId};
use model::{Digit, Timestamp};
use xml::ast::Beep;

/// Opus's RTP clock.
const RTP_CLOCK: u32 = 48_000;
/// So much of the peer's sound says that somebody has picked up (`meta-calling.md` §7.2).
const FLOWING_MS: u32 = 500;
/// Orders of digits that wait for each other; one has 64 at most.
const DIGIT_ORDERS_MAX: usize = 32;
/// Taps at a time: a recording or two, a stream, a recogniser, a room.
const TAPS_MAX: usize = 8;

/// What a call orders.
#[derive(Debug)]
pub(super) enum LegOrder {
    Begin,
    Open,
    Play(PlayId, Vec<PlayItem>),
    /// Beside what `Play` plays.
    Aside(PlayId, Overlay, Vec<PlayItem>),
    Stop(PlayId),
    SendDigits(PlayId, String),
    Listen(bool),
    Beep(Option<Beep>),
    Bridge(Box<BridgeEnd>),
    Part,
    Tap(TapEnd),
    Feed(Box<FeedEnd>),
    Room(Box<FeedEnd>),
    /// Nobody hears the peer's sound; its keys count all the same.
    Mute(bool),
    Close,
}

/// What a leg has counted; written by its shard, read by anybody.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rtp_in: AtomicU64,
    pub(super) rtp_out: AtomicU64,
    /// Brought up to date every second.
    pub(super) quality: Account,
}

/// What a leg is made of.
pub(super) struct Making {
    pub(super) rtc: Rtc,
    pub(super) mid: Mid,
    /// Where the keys appear that DTLS agrees on.
    pub(super) keys: Keyring,
    pub(super) cname: String,
    pub(super) ssrc: u32,
    pub(super) sink: EventSink,
    pub(super) counters: Arc<Counters>,
    pub(super) homes: Homes,
    /// Our and the peer's ICE passwords: requests come with the one, responses with the other.
    pub(super) pwd: String,
    pub(super) remote_pwd: String,
    /// We send the checks: the offer was ICE-lite.
    pub(super) controlling: bool,
    /// We made the offer: whether the peer is heard is told.
    pub(super) offered: bool,
    /// We open DTLS.
    pub(super) dtls_client: bool,
    pub(super) opus_pt: u8,
    pub(super) telephone_events: Vec<TelephoneEvent>,
    pub(super) digits_out: Option<TelephoneEvent>,
    pub(super) remote_ssrc: Option<u32>,
    /// Milliseconds that a packet of the peer's holds.
    pub(super) packet_ms: u32,
    /// Where our sequence numbers (below 2^16: no rollover yet) and timestamps begin.
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) silence: Frame,
    pub(super) media_dead: Duration,
    pub(super) now: Instant,
    /// The wall clock's time then.
    pub(super) wall: Timestamp,
}

/// A leg. What each packet asks comes first, so that it lies in few lines of the processor's caches, which `fetch` knows.
#[repr(C)]
pub(super) struct Leg {
    /// Its own RTP, once connected; none: the agent's serves.
    transport: Option<Box<Transport>>,
    counters: Arc<Counters>,
    last_valid: Instant,
    /// Where DTLS and RTP go; none before the first went.
    path: Option<SocketAddr>,
    /// When something authentic came from there last.
    path_heard: Instant,
    /// RTP packets in and out that the shard has not added up yet.
    uncounted: (u64, u64),
    /// Packets of the peer's still to come until it counts as heard for half a second; none: nobody asks.
    flowing_in: Option<u32>,
    timestamp: u32,
    opus_pt: u8,
    begun: bool,
    open: bool,
    ice_up: bool,
    connected: bool,
    heard: bool,
    /// A fault has been told; nothing more will be.
    lost: bool,
    /// Nobody is to hear the peer.
    muted: bool,
    /// Sound went out with the last packet: the next one needs no marker.
    talking: bool,
    /// A key or the pause after it has this tick: a prompt waits.
    keyed: bool,
    /// Keys as sound: there where no telephone-event was agreed.
    in_band: Option<Box<InBand>>,
    /// Somebody listens.
    ear: Option<Box<Ear>>,
    /// Another leg's peer is heard, and hears this one's.
    bridge: Option<Box<BridgeEnd>>,
    /// What a room says to the peer.
    room: Option<Box<FeedEnd>>,
    /// Other live sound for the peer, and what adds it to what the peer hears besides.
    feed: Option<Box<FeedEnd>>,
    blend: Option<Box<Blend<2>>>,
    /// Sounds over the player's, while there are any.
    layers: Option<Box<Layers>>,
    /// Copies of what passes.
    taps: Vec<TapEnd>,
    /// When the agent wants to be driven next.
    wake: Instant,
    sequence: u64,
    player: Option<Player>,
    /// Digits that go out, the first ones now.
    sending: VecDeque<(PlayId, dtmf::Sender)>,
    digits: Vec<Digit>,
    receiver: dtmf::Receiver,
    silence: Frame,
    media_dead: Duration,
    /// There once it is open.
    watchdog: Option<Watchdog>,

    /// The first of those that are seldom asked. Boxed: it is large.
    rtc: Box<Rtc>,
    mid: Mid,
    keys: Keyring,
    cname: String,
    ssrc: u32,
    /// A moment, and the wall clock's time then.
    epoch: (Instant, Timestamp),
    sink: EventSink,
    homes: Homes,
    pwd: String,
    remote_pwd: String,
    controlling: bool,
    dtls_client: bool,
    telephone_events: Vec<u8>,
    digits_out: Option<TelephoneEvent>,
    /// The sender's time in its latest report.
    last_report: Option<SystemTime>,
    ssrcs: VecDeque<u32>,
    /// An SSRC not known before, whose first packet is being tried.
    trial: Option<u32>,
    /// RTP ticks that have passed and that nothing was sent for yet; less than none where a packet was a long one.
    owed: i64,
    /// Our checks, until it is connected; none: the peer checks us.
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

    /// The address that DTLS and RTP of a connected leg go to.
    pub(super) fn settled(&self) -> Option<SocketAddr> {
        self.path.filter(|_| self.connected)
    }

    /// Its path is coming up: checks or a handshake are under way.
    pub(super) fn is_coming_up(&self) -> bool {
        self.begun && !self.connected && !self.lost
    }

    /// A DTLS handshake is under way.
    pub(super) fn is_shaking_hands(&self) -> bool {
        self.ice_up && !self.connected && !self.lost
    }

    /// Whether its peer is known to send with this SSRC.
    pub(super) fn knows(&self, ssrc: u32) -> bool {
        self.ssrcs.contains(&ssrc)
            || self.transport.as_ref().is_some_and(|transport| transport.knows(ssrc))
    }

    /// RTP packets that authenticated, so far.
    pub(super) fn heard_so_far(&self) -> u64 {
        self.counters.rtp_in.load(Ordering::Relaxed)
    }

    /// Whether a STUN request was made with our password.
    pub(super) fn authenticates_request(&self, request: &[u8]) -> bool {
        stun::is_authentic(request, &self.pwd)
    }

    /// Whether the answer to a check was made with the peer's password.
    pub(super) fn authenticates_response(&self, response: &[u8]) -> bool {
        stun::is_authentic(response, &self.remote_pwd)
    }

    /// RTP packets in and out since this was asked last.
    pub(super) fn counted(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.uncounted)
    }

    /// Carries out an order. `Close` says goodbye; the leg is to be dropped then.
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
            // Far too many: whoever ordered this goes on.
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
            // Far too many: this one is over at once.
            LegOrder::Tap(_) => {}
            LegOrder::Mute(on) => self.muted = on,
            LegOrder::Close => {
                self.lost = true;
                self.say_goodbye(now, out);
            }
        }
    }

    /// What the ear listens for changes; one that listens for nothing is none.
    fn listen(&mut self, change: impl FnOnce(&mut Ear)) {
        let mut ear = self.ear.take().unwrap_or_else(|| Box::new(Ear::new()));
        change(&mut ear);
        self.ear = Some(ear).filter(|ear| ear.is_of_use());
    }

    /// The leg's 20 ms tick: timers, and a packet where one is due.
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

    /// Says what is missing where it is time to.
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

    /// One packet: a digit's, a prompt's, or silence.
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
        // An event's timestamp is that of its begin: so is its time, or sender reports would tell nonsense.
        let behind =
            Duration::from_micros(u64::from(now_timestamp.wrapping_sub(timestamp)) * 1_000 / 48);
        let at = now.checked_sub(behind).unwrap_or(now);
        self.write(at, (pt, marker), timestamp, payload, out);
    }

    /// What the bridge has for this tick, silence where it has nothing; `false`: there is none, or something goes before it or
    /// is heard with it. A peer's packet may last longer or shorter than a tick, and goes out when its time has come.
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
                    // A loss stays one: whoever decodes makes up for it.
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

    /// What the running digits send at this tick; none: a prompt or silence has the tick.
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

    /// The next frame of what plays. A key holds the prompt up; where digits are waited between, it goes on.
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

    /// The next frame of what the call's document plays, or of what is said by its other leg, its room and who feeds it. It
    /// goes on also while something is heard instead of it.
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

    /// For whoever taps.
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
            self.tell(LegEvent::Fact(MediaEvent::Lost { fault }));
            self.lost = true;
        }
    }

    fn tell(&self, event: LegEvent) {
        if !self.lost {
            (self.sink)(event);
        }
    }
}

/// The next frame of live sound.
fn fed_frame(feed: &mut Option<Box<FeedEnd>>) -> Option<Frame> {
    let (frame, goes_on) = feed.as_mut()?.next();
    if !goes_on {
        *feed = None;
    }
    frame
}

/// Only the shard writes; no read-modify-write is needed.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
