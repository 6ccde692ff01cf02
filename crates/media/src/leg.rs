//! One leg on its shard: its ICE and DTLS, playback, DTMF, and liveness.
//!
//! The shard calls [`Leg::receive`] for each datagram of the leg, [`Leg::tick`] every 20 ms, and
//! [`Leg::execute`] for commands. Datagrams to send are appended to a [`SendBuffer`]. `leg/path.rs`
//! contains the network side. Sockets and routing belong to `shard`.

mod checks;
mod path;
mod prefetch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use checks::CheckRetransmitter;
use str0m::Rtc;
use str0m::media::Mid;

use super::audio_detector::AudioDetector;
use super::bridge::BridgeEnd;
use super::dtls::KeyCell;
use super::dtmf;
use super::feed::FeedEnd;
use super::ice::LocalAddresses;
use super::jitter_buffer::PACKET_TICKS;
use super::layers::Layers;
use super::packet_mixer::{BridgeAudio, PacketMixer, next_bridge_audio};
use super::player::{PlayItem, Player, Step};
use super::prompt::Frame;
use super::quality::SharedQuality;
use super::sdp::TelephoneEvent;
use super::send_buffer::SendBuffer;
use super::stun;
use super::tap::{TapEnd, TapEntry};
use super::tones::InBandDtmf;
use super::transport::Transport;
use super::watchdog::{AudioWatchdog, MissingStep};
use super::{EventSink, LegEvent};
use machine::{MediaEvent, MediaFault, Overlay, PlayId};
use model::{Digit, Timestamp};
use xml::ast::Beep;

/// RTP clock rate of Opus.
const RTP_CLOCK: u32 = 48_000;
/// Amount of received audio after which the peer of a call that we placed counts as having picked
/// up (docs/reference/meta.md#business-initiated-calls).
const FLOWING_MS: u32 = 500;
/// Maximum number of queued digit commands.
const DIGIT_COMMANDS_MAX: usize = 32;
/// Maximum number of taps: recordings, a stream, speech recognition, a room.
const TAPS_MAX: usize = 8;

/// A command from the call.
#[derive(Debug)]
pub(super) enum LegCommand {
    Begin,
    Open,
    Play(PlayId, Vec<PlayItem>),
    /// Plays over what `Play` plays, or in place of it.
    Overlay(PlayId, Overlay, Vec<PlayItem>),
    Stop(PlayId),
    SendDigits(PlayId, String),
    DetectVoice(bool),
    DetectBeep(Option<Beep>),
    Bridge(Box<BridgeEnd>),
    Unbridge,
    Tap(TapEnd),
    Feed(Box<FeedEnd>),
    RoomFeed(Box<FeedEnd>),
    /// Mutes the peer's audio; its keys still count.
    Mute(bool),
    Close,
}

/// Counters of a leg, written by its shard and readable from any thread.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rtp_in: AtomicU64,
    pub(super) rtp_out: AtomicU64,
    /// Updated every second.
    pub(super) quality: SharedQuality,
}

/// Everything needed to create a [`Leg`].
pub(super) struct LegConfig {
    pub(super) rtc: Rtc,
    pub(super) mid: Mid,
    /// Receives the SRTP keys when the DTLS handshake is complete.
    pub(super) keys: KeyCell,
    pub(super) cname: String,
    pub(super) ssrc: u32,
    pub(super) sink: EventSink,
    pub(super) counters: Arc<Counters>,
    pub(super) local_addresses: LocalAddresses,
    /// Local ICE password, used by incoming requests, and remote one, used by responses.
    pub(super) pwd: String,
    pub(super) remote_pwd: String,
    /// Whether we send the ICE checks, because the offer was ICE-lite.
    pub(super) controlling: bool,
    /// Whether the offer was ours. Then [`MediaEvent::Flowing`] is reported.
    pub(super) offered: bool,
    /// Whether we are the DTLS client.
    pub(super) dtls_client: bool,
    pub(super) opus_pt: u8,
    pub(super) telephone_events: Vec<TelephoneEvent>,
    pub(super) telephone_event_out: Option<TelephoneEvent>,
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
    path_active_at: Instant,
    /// RTP packets in and out that the shard has not added to its counters yet.
    uncounted: (u64, u64),
    /// Packets left until half a second of the peer's audio has arrived. `None` if that is not
    /// reported.
    packets_until_flowing: Option<u32>,
    timestamp: u32,
    opus_pt: u8,
    started: bool,
    open: bool,
    ice_up: bool,
    connected: bool,
    has_received: bool,
    /// A fault was reported; no further event follows.
    ended: bool,
    /// Whether the peer is muted.
    muted: bool,
    /// The last packet contained audio, so the next one needs no marker.
    sent_audio: bool,
    /// This tick belongs to a digit or the pause after it; playback waits.
    sending_digit: bool,
    /// DTMF as tones, if no telephone-event was negotiated.
    in_band: Option<Box<InBandDtmf>>,
    /// Present while voice or a beep is to be detected.
    detector: Option<Box<AudioDetector>>,
    /// Connects this leg with another one.
    bridge: Option<Box<BridgeEnd>>,
    /// Audio of a room.
    room: Option<Box<FeedEnd>>,
    /// Other live audio for the peer, and the mixer that adds it to the rest.
    feed: Option<Box<FeedEnd>>,
    mixer: Option<Box<PacketMixer<2>>>,
    /// Audio over the player's, if there is any.
    layers: Option<Box<Layers>>,
    /// Copies of what passes.
    taps: Vec<TapEnd>,
    /// Next timeout of str0m.
    wake: Instant,
    sequence: u64,
    player: Option<Player>,
    /// Queued digits. The first ones are being sent.
    sending: VecDeque<(PlayId, dtmf::Sender)>,
    digits: Vec<Digit>,
    receiver: dtmf::Receiver,
    silence: Frame,
    media_dead: Duration,
    /// Present once the leg is open.
    watchdog: Option<AudioWatchdog>,

    /// First of the rarely used fields. Boxed, because it is large.
    rtc: Box<Rtc>,
    mid: Mid,
    keys: KeyCell,
    cname: String,
    ssrc: u32,
    /// A point in time, and the wall-clock time then.
    epoch: (Instant, Timestamp),
    sink: EventSink,
    local_addresses: LocalAddresses,
    pwd: String,
    remote_pwd: String,
    controlling: bool,
    dtls_client: bool,
    telephone_events: Vec<u8>,
    telephone_event_out: Option<TelephoneEvent>,
    /// NTP time of the peer's latest sender report.
    last_report: Option<SystemTime>,
    ssrcs: VecDeque<u32>,
    /// An unknown SSRC that is on trial with its first packet.
    trial: Option<u32>,
    /// RTP ticks for which nothing was sent yet. Negative after a packet longer than a tick.
    due_ticks: i64,
    /// Retransmission of our checks until connected. `None` if the peer sends the checks.
    checks: Option<Box<CheckRetransmitter>>,
}

impl Leg {
    pub(super) fn new(config: LegConfig) -> Self {
        Self {
            rtc: Box::new(config.rtc),
            mid: config.mid,
            keys: config.keys,
            transport: None,
            cname: config.cname,
            ssrc: config.ssrc,
            epoch: (config.now, config.wall),
            sink: config.sink,
            counters: config.counters,
            local_addresses: config.local_addresses,
            pwd: config.pwd,
            remote_pwd: config.remote_pwd,
            controlling: config.controlling,
            dtls_client: config.dtls_client,
            media_dead: config.media_dead,
            opus_pt: config.opus_pt,
            telephone_events: config.telephone_events.iter().map(|t| t.pt).collect(),
            telephone_event_out: config.telephone_event_out,
            silence: config.silence,
            started: false,
            open: false,
            ice_up: false,
            connected: false,
            has_received: false,
            packets_until_flowing: config
                .offered
                .then(|| FLOWING_MS.div_ceil(config.packet_ms.max(1))),
            ended: false,
            wake: config.now,
            last_valid: config.now,
            last_report: None,
            path: None,
            path_active_at: config.now,
            ssrcs: config.remote_ssrc.into_iter().collect(),
            trial: None,
            uncounted: (0, 0),
            sequence: u64::from(config.sequence),
            timestamp: config.timestamp,
            player: None,
            sent_audio: false,
            layers: None,
            sending: VecDeque::new(),
            sending_digit: false,
            receiver: dtmf::Receiver::default(),
            digits: Vec::new(),
            in_band: config.telephone_event_out.is_none().then(|| Box::new(InBandDtmf::new())),
            detector: None,
            bridge: None,
            room: None,
            feed: None,
            mixer: None,
            taps: Vec::new(),
            due_ticks: 0,
            checks: config.controlling.then(Box::default),
            muted: false,
            watchdog: None,
        }
    }

    /// The peer's address for DTLS and RTP, once the leg is connected.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        self.path.filter(|_| self.connected)
    }

    /// Returns whether ICE or DTLS is in progress.
    pub(super) fn is_connecting(&self) -> bool {
        self.started && !self.connected && !self.ended
    }

    /// Returns whether the leg has no media path yet, and may get one.
    pub(super) fn is_unconnected(&self) -> bool {
        !self.connected && !self.ended
    }

    /// Returns whether a DTLS handshake is in progress.
    pub(super) fn is_handshaking(&self) -> bool {
        self.ice_up && !self.connected && !self.ended
    }

    /// Returns whether the peer is known to use this SSRC.
    pub(super) fn has_ssrc(&self, ssrc: u32) -> bool {
        self.ssrcs.contains(&ssrc)
            || self.transport.as_ref().is_some_and(|transport| transport.has_ssrc(ssrc))
    }

    /// Number of RTP packets received that authenticated.
    pub(super) fn packets_received(&self) -> u64 {
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
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.uncounted)
    }

    /// Executes a command. After `Close` the leg must be dropped.
    pub(super) fn execute(&mut self, now: Instant, command: LegCommand, out: &mut SendBuffer) {
        match command {
            LegCommand::Begin => self.started = true,
            LegCommand::Open => {
                self.open = true;
                if let Some(checks) = &mut self.checks {
                    checks.open(now);
                }
                self.watchdog.get_or_insert(AudioWatchdog::new(now));
            }
            LegCommand::Play(play, items) => self.player = Some(Player::new(play, items)),
            LegCommand::Stop(play) => {
                self.player.take_if(|p| p.play() == play);
                self.sending.retain(|(digits, _)| *digits != play);
                if let Some(layers) = &mut self.layers {
                    layers.stop(play);
                }
            }
            LegCommand::Overlay(play, aside, items) => {
                self.layers.get_or_insert_default().play(play, &aside, items)
            }
            LegCommand::SendDigits(play, digits) if self.sending.len() < DIGIT_COMMANDS_MAX => {
                let clock = self.telephone_event_out.map_or(RTP_CLOCK, |t| t.clock);
                self.sending.push_back((play, dtmf::Sender::new(&digits, clock)));
            }
            // Too many; report completion, so that the caller continues.
            LegCommand::SendDigits(play, _) => self.report(LegEvent::DigitsSent(play)),
            LegCommand::DetectVoice(on) => {
                self.update_detector(|detector| detector.detect_voice(on))
            }
            LegCommand::DetectBeep(settings) => {
                self.update_detector(|detector| detector.detect_beep(settings))
            }
            LegCommand::Bridge(end) => {
                self.bridge = Some(end);
                self.due_ticks = 0;
            }
            LegCommand::Unbridge => self.bridge = None,
            LegCommand::Feed(end) => self.feed = Some(end),
            LegCommand::RoomFeed(end) => self.room = Some(end),
            LegCommand::Tap(tap) if self.taps.len() < TAPS_MAX => self.taps.push(tap),
            // Too many; dropping the end ends this tap immediately.
            LegCommand::Tap(_) => {}
            LegCommand::Mute(on) => self.muted = on,
            LegCommand::Close => {
                self.ended = true;
                self.send_goodbye(now, out);
            }
        }
    }

    /// Changes the settings of the detector, which is dropped when nothing is left to detect.
    fn update_detector(&mut self, change: impl FnOnce(&mut AudioDetector)) {
        let mut detector = self.detector.take().unwrap_or_else(|| Box::new(AudioDetector::new()));
        change(&mut detector);
        self.detector = Some(detector).filter(|detector| detector.is_active());
    }

    /// Runs the leg's 20 ms tick: timers, and the packets that are due.
    pub(super) fn tick(&mut self, now: Instant, out: &mut SendBuffer) {
        let mut digits = std::mem::take(&mut self.digits);
        self.receiver.tick(now, &mut digits);
        self.report_digits(digits);
        if let Some(detector) = &mut self.detector {
            let events = detector.tick(now);
            events.into_iter().flatten().for_each(|voice| self.report(LegEvent::Voice(voice)));
        }
        if self.connected && now.saturating_duration_since(self.last_valid) >= self.media_dead {
            self.fail(MediaFault::Silent);
        }
        self.check_audio(now);
        if self.connected && self.open {
            if !self.send_bridged(now, out) {
                self.send_packet(now, out);
            }
            self.copy_to_taps(&TapEntry::Tick);
            self.maintain(now, out);
        } else if self.started || !self.controlling {
            if now >= self.wake {
                self.drive(now, out);
            }
            if let Some((to, check)) =
                self.checks.as_mut().and_then(|checks| checks.next_copy(now, self.wake))
            {
                out.push(to, check);
            }
        }
    }

    /// Reports the set-up step at which audio is missing, when a check is due.
    fn check_audio(&mut self, now: Instant) {
        let missing = match (self.ice_up, self.connected, self.has_received) {
            (_, _, true) => None,
            (_, true, false) => Some(MissingStep::Packet),
            (true, false, false) => Some(MissingStep::Handshake),
            (false, false, false) => Some(MissingStep::Check),
        };
        if let Some((missing, waited)) =
            self.watchdog.as_mut().and_then(|watchdog| watchdog.check(now, missing))
        {
            self.report(LegEvent::NoAudio { missing, waited, checking: self.controlling });
        }
    }

    /// Sends one packet: of a digit, of audio, or of silence.
    fn send_packet(&mut self, now: Instant, out: &mut SendBuffer) {
        let now_timestamp = self.timestamp;
        self.timestamp = self.timestamp.wrapping_add(PACKET_TICKS);
        let (pt, timestamp, payload, marker) = match self.digit_packet(now_timestamp) {
            Some((pt, payload, timestamp, marker)) => {
                self.sent_audio = false;
                (pt, timestamp, payload, marker)
            }
            None => {
                let frame = self.frame();
                if let Some(frame) = &frame {
                    self.copy_sent_to_taps(frame);
                }
                let marker = frame.is_some() && !self.sent_audio;
                self.sent_audio = frame.is_some();
                (self.opus_pt, now_timestamp, frame.unwrap_or_else(|| self.silence.clone()), marker)
            }
        };
        // The timestamp of an event is that of its start. Its time must match, or sender reports
        // would be wrong.
        let offset =
            Duration::from_micros(u64::from(now_timestamp.wrapping_sub(timestamp)) * 1_000 / 48);
        let at = now.checked_sub(offset).unwrap_or(now);
        self.send(at, (pt, marker), timestamp, payload, out);
    }

    /// Sends the bridge's packets for this tick, or silence. Returns `false` without sending if the
    /// leg is not bridged, or if other audio has precedence or must be mixed with it. Packets of
    /// other lengths than a tick are sent when their time has come.
    fn send_bridged(&mut self, now: Instant, out: &mut SendBuffer) -> bool {
        let Some(bridge) = &mut self.bridge else { return false };
        bridge.receive();
        let is_mixed =
            self.layers.is_some() || self.feed.as_ref().is_some_and(|feed| feed.has_queued());
        if self.player.is_some() || is_mixed || !self.sending.is_empty() {
            self.due_ticks = 0;
            return false;
        }
        self.mixer = None;
        self.due_ticks += i64::from(PACKET_TICKS);
        while self.due_ticks > 0 {
            let packet = self.bridge.as_mut().and_then(|bridge| bridge.next_packet());
            let (payload, ticks) = match packet {
                Some(packet) => {
                    // A loss stays a loss in our stream, so that the receiving decoder conceals it.
                    let (ticks_lost, packets_lost) = packet.lost;
                    self.sequence += packets_lost;
                    self.timestamp = self.timestamp.wrapping_add(ticks_lost);
                    self.due_ticks -= i64::from(ticks_lost);
                    (Some(packet.payload), packet.ticks)
                }
                None if self.due_ticks >= i64::from(PACKET_TICKS) => (None, PACKET_TICKS),
                None => break,
            };
            if let Some(payload) = &payload {
                self.copy_sent_to_taps(payload);
            }
            let marker = payload.is_some() && !self.sent_audio;
            self.sent_audio = payload.is_some();
            let timestamp = self.timestamp;
            self.timestamp = timestamp.wrapping_add(ticks);
            self.due_ticks -= i64::from(ticks);
            let payload = payload.unwrap_or_else(|| self.silence.clone());
            self.send(now, (self.opus_pt, marker), timestamp, payload, out);
        }
        true
    }

    /// Returns the packet of the current digit for this tick, or `None` if the tick is free for
    /// audio.
    fn digit_packet(&mut self, timestamp: u32) -> Option<(u8, Frame, u32, bool)> {
        self.sending_digit = false;
        let (play, sender) = self.sending.front_mut()?;
        let (play, step) = (*play, sender.step(timestamp));
        self.sending_digit = matches!(step, dtmf::Step::Event { .. } | dtmf::Step::Pause);
        if let Some(in_band) = &mut self.in_band
            && self.sending_digit
        {
            return in_band.frame(step).map(|frame| (self.opus_pt, frame, timestamp, false));
        }
        match step {
            dtmf::Step::Event { payload, timestamp, marker } => {
                Some((self.telephone_event_out?.pt, Frame::from(payload), timestamp, marker))
            }
            dtmf::Step::Pause | dtmf::Step::Wait => None,
            dtmf::Step::Done => {
                self.sending.pop_front();
                self.report(LegEvent::DigitsSent(play));
                None
            }
        }
    }

    /// Returns the next audio frame. A digit holds playback up, a wait between digits does not.
    fn frame(&mut self) -> Option<Frame> {
        if self.sending_digit {
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
        let room = next_feed_frame(&mut self.room);
        if self.player.is_some() {
            let played_frame = self.next_played_frame();
            return room.filter(|frame| **frame != *self.silence).or(played_frame);
        }
        let feed_frame = next_feed_frame(&mut self.feed);
        let bridged = match &mut self.bridge {
            Some(bridge) => match next_bridge_audio(bridge, &mut self.mixer) {
                BridgeAudio::Frame(frame) => Some(frame),
                BridgeAudio::Packets(mixer) => return Some(mixer.mix([None, feed_frame.as_ref()])),
                BridgeAudio::Nothing => None,
            },
            None => room,
        };
        if self.feed.is_none() {
            self.mixer = None;
        }
        match (bridged, feed_frame) {
            (Some(bridged), Some(feed_frame)) if *bridged != *self.silence => {
                Some(self.mixer.get_or_insert_default().mix([Some(&bridged), Some(&feed_frame)]))
            }
            (bridged, feed_frame) => feed_frame.or(bridged),
        }
    }

    fn next_played_frame(&mut self) -> Option<Frame> {
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
    fn copy_to_taps(&mut self, entry: &TapEntry) {
        if !self.taps.is_empty() {
            self.taps.retain(|tap| tap.push(entry));
        }
    }

    fn copy_sent_to_taps(&mut self, frame: &Frame) {
        if !self.taps.is_empty() {
            self.copy_to_taps(&TapEntry::Sent(frame.clone()));
        }
    }

    fn report_digits(&mut self, mut digits: Vec<Digit>) {
        for digit in digits.drain(..) {
            self.report(LegEvent::Digit(digit));
        }
        self.digits = digits;
    }

    fn fail(&mut self, fault: MediaFault) {
        if !self.ended {
            if fault == MediaFault::Fingerprint {
                let (missing, waited) = (MissingStep::Fingerprint, Duration::ZERO);
                self.report(LegEvent::NoAudio { missing, waited, checking: self.controlling });
            }
            self.report(LegEvent::Media(MediaEvent::Lost { fault }));
            self.ended = true;
        }
    }

    fn report(&self, event: LegEvent) {
        if !self.ended {
            (self.sink)(event);
        }
    }
}

/// Takes the next frame of a feed, and drops the feed if its sender is gone.
fn next_feed_frame(feed: &mut Option<Box<FeedEnd>>) -> Option<Frame> {
    let (frame, is_open) = feed.as_mut()?.next();
    if !is_open {
        *feed = None;
    }
    frame
}

/// Only the shard writes, so no atomic read-modify-write is needed.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
