//! One leg on its shard: its ICE and DTLS, playback, DTMF, and liveness.
//!
//! The shard calls [`Leg::receive`] for each datagram of the leg, [`Leg::tick`] every 20 ms, and
//! [`Leg::execute`] for commands. Datagrams to send are appended to a [`SendBuffer`]. Sockets and
//! routing belong to `shard`.
//!
//! A datagram goes through [`Network`], which decrypts it, to [`Inbound`]; the packets of a tick
//! come from [`Outbound`] and go through [`Network`].

mod audio;
mod checks;
mod digits;
mod inbound;
mod network;
mod outbound;
mod path_checks;
mod prefetch;
mod quota;
mod reporter;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audio::AudioSources;
use digits::DigitQueue;
pub(super) use inbound::count_excess;
use inbound::{Inbound, InboundState, PacketHandler};
pub(super) use network::NetworkConfig;
use network::{Network, NetworkState};
use outbound::{Outbound, OutboundState, PacketSink};
pub(super) use reporter::Counters;
use reporter::Reporter;
use serde::{Deserialize, Serialize};

use super::bridge::{BridgeEnd, BridgeState};
use super::feed::{FeedEnd, FeedState};
use super::ice::Identity;
use super::player::{PlayItem, Player};
use super::prompt::{Frame, Prompt};
use super::sdp::TelephoneEvent;
use super::send_buffer::SendBuffer;
use super::snapshot::{NotMovable, Offset, PromptTable, TimeBase};
use super::tap::{TapEnd, TapEntry, Taps};
use super::watchdog::{AudioWatchdog, MissingStep};
use super::{EventSink, FRAME_MS, LegEvent, MediaError};
use machine::{MediaFault, Overlay, PlayId};
use xml::ast::Beep;

/// End of the packet counters, as many as there are SRTP indexes.
const PACKETS_END: u64 = 1 << 48;
/// Number of packets that are skipped in addition to those that were due, if another process may
/// have sent some.
const SKIP_MARGIN: u32 = 50;

/// A command from the call.
#[derive(Debug)]
pub(super) enum LegCommand {
    Begin,
    Open,
    Play(PlayId, Vec<PlayItem>),
    /// Plays audio in addition to the playlist, or in place of it.
    Overlay(PlayId, Overlay, Vec<PlayItem>),
    Stop(PlayId),
    /// Pauses or resumes a playlist.
    Pause(PlayId, bool),
    SendDigits(PlayId, String),
    DetectVoice(bool),
    DetectBeep(Option<Beep>),
    Bridge(Box<BridgeEnd>),
    Unbridge,
    Tap(TapEnd),
    Feed(Box<FeedEnd>),
    RoomFeed(Box<FeedEnd>),
    /// Mutes the peer's audio. Its keys still count.
    Mute(bool),
    Close,
}

/// Everything needed to create a [`Leg`].
pub(super) struct LegConfig {
    pub(super) network: NetworkConfig,
    pub(super) sink: EventSink,
    pub(super) counters: Arc<Counters>,
    /// Whether this side made the offer. Then [`MediaEvent::Flowing`](machine::MediaEvent::Flowing)
    /// is reported.
    pub(super) offered: bool,
    pub(super) telephone_events: Vec<TelephoneEvent>,
    pub(super) telephone_event_out: Option<TelephoneEvent>,
    /// The length of the peer's packets in milliseconds.
    pub(super) packet_ms: u32,
    /// The initial sequence number, below the first rollover, and the initial timestamp.
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) silence: Frame,
    pub(super) media_dead: Duration,
}

/// A leg. Fields that every packet needs come first, so that they share few cache lines;
/// `leg/prefetch.rs` depends on this order.
#[repr(C)]
pub(super) struct Leg {
    reporter: Reporter,
    started: bool,
    open: bool,
    /// The time of the last tick.
    ticked_at: Instant,
    media_dead: Duration,
    /// Checks the audio. `None` until the leg is open.
    watchdog: Option<AudioWatchdog>,
    /// The taps, which get copies of the packets in both directions.
    taps: Taps,
    inbound: Inbound,
    outbound: Outbound,
    /// Must be the last field, because its end contains rarely used data.
    network: Network,
}

/// The state of a connected [`Leg`] in its snapshot.
#[derive(Serialize, Deserialize)]
pub(super) struct LegState {
    open: bool,
    ticked_at: Offset,
    watchdog: Option<AudioWatchdog<Offset>>,
    /// The numbers of received and sent RTP packets.
    totals: (u64, u64),
    inbound: InboundState,
    outbound: OutboundState,
    network: NetworkState,
}

impl LegState {
    /// The time of the last tick.
    pub(super) fn ticked_at(&self) -> Offset {
        self.ticked_at
    }
}

/// Everything needed to create a leg of a snapshot, besides its state.
pub(super) struct RestoreConfig<'a> {
    pub(super) ufrag: &'a str,
    pub(super) identity: &'a Identity,
    pub(super) prompts: &'a PromptTable,
    pub(super) silence: Frame,
    pub(super) media_dead: Duration,
    pub(super) sink: EventSink,
    pub(super) now: Instant,
    pub(super) base: TimeBase,
}

impl Leg {
    pub(super) fn new(config: LegConfig) -> Self {
        let opus_pt = config.network.opus_pt;
        let now = config.network.now;
        let digits = DigitQueue::new(config.telephone_event_out);
        let inbound = Inbound::new(
            opus_pt,
            config.telephone_events.iter().map(|event| event.pt).collect(),
            config.telephone_event_out.is_none(),
            config.offered.then_some(config.packet_ms),
        );
        let audio = AudioSources::new(config.silence);
        Self {
            reporter: Reporter::new(config.sink, config.counters),
            started: false,
            open: false,
            ticked_at: now,
            media_dead: config.media_dead,
            watchdog: None,
            taps: Taps::default(),
            inbound,
            outbound: Outbound::new(opus_pt, (config.sequence, config.timestamp), digits, audio),
            network: Network::new(config.network),
        }
    }

    /// Returns why the leg cannot move to another process, if it cannot.
    pub(super) fn movable(&self) -> Result<(), NotMovable> {
        if self.reporter.has_ended() {
            return Err(NotMovable::Ended);
        }
        self.network.movable()?;
        if !self.taps.are_movable() {
            return Err(NotMovable::Tapped);
        }
        self.outbound.audio.movable()
    }

    /// Returns the prompts that the leg plays.
    pub(super) fn prompts(&self) -> impl Iterator<Item = &Arc<Prompt>> {
        self.outbound.audio.prompts()
    }

    /// Returns the state of a leg that can move. Its prompts are added to `prompts`.
    pub(super) fn snapshot(
        &self,
        base: TimeBase,
        prompts: &PromptTable,
    ) -> Result<LegState, NotMovable> {
        self.movable()?;
        Ok(LegState {
            open: self.open,
            ticked_at: base.offset(self.ticked_at),
            watchdog: self.watchdog.map(|watchdog| watchdog.map_time(|at| base.offset(at))),
            totals: self.reporter.counters.totals(),
            inbound: self.inbound.snapshot(base),
            outbound: self.outbound.snapshot(prompts),
            network: self.network.snapshot(base)?,
        })
    }

    /// Returns the state of the feed. `None` if there is none.
    pub(super) fn feed_snapshot(&mut self) -> Option<FeedState> {
        Some(self.outbound.audio.feed.as_mut()?.snapshot())
    }

    /// Creates the leg of a snapshot, with its counters.
    pub(super) fn restore(
        state: LegState,
        config: RestoreConfig<'_>,
    ) -> Result<(Self, Arc<Counters>), MediaError> {
        let RestoreConfig { ufrag, identity, prompts, silence, media_dead, sink, now, base } =
            config;
        if state.totals.0.max(state.totals.1) >= PACKETS_END {
            return Err(MediaError::Snapshot);
        }
        let network = Network::restore(state.network, ufrag, identity, now, base)?;
        let outbound =
            Outbound::restore(state.outbound, prompts, silence).ok_or(MediaError::Snapshot)?;
        let quality = network.transport.as_ref().map(|transport| transport.quality());
        let counters = Arc::new(Counters::starting_at(state.totals, &quality.unwrap_or_default()));
        let leg = Self {
            reporter: Reporter::new(sink, counters.clone()),
            started: true,
            open: state.open,
            ticked_at: base.at(state.ticked_at),
            media_dead,
            watchdog: state.watchdog.map(|watchdog| watchdog.map_time(|at| base.at(at))),
            taps: Taps::default(),
            inbound: Inbound::restore(state.inbound, base),
            outbound,
            network,
        };
        Ok((leg, counters))
    }

    /// Skips the packets that another process may have sent for this leg until now, so that no SRTP
    /// index is used twice (RFC 3711 §9.1).
    pub(super) fn skip_sent(&mut self, now: Instant) {
        let missed = self.ticks_missed(now);
        self.tap_gap(missed);
        let ticks = missed.saturating_add(SKIP_MARGIN);
        self.ticked_at = now;
        self.outbound.skip_ticks(ticks);
        if let Some(transport) = &mut self.network.transport {
            // Reports are at least a second apart.
            transport.skip_reports(ticks);
        }
    }

    /// Returns the state of the bridge. `None` if there is none.
    pub(super) fn bridge_snapshot(&mut self) -> Option<BridgeState> {
        Some(self.outbound.audio.bridge.as_mut()?.snapshot())
    }

    /// Sets the end of a bridge.
    pub(super) fn set_bridge(&mut self, end: BridgeEnd) {
        self.outbound.audio.bridge = Some(Box::new(end));
    }

    /// Sets the feed.
    pub(super) fn set_feed(&mut self, feed: FeedEnd) {
        self.outbound.audio.feed = Some(Box::new(feed));
    }

    /// Adds a tap.
    pub(super) fn add_tap(&mut self, tap: TapEnd) {
        self.taps.add(tap);
    }

    /// Reports ticks to the taps that are left out.
    pub(super) fn tap_gap(&mut self, ticks: u32) {
        if ticks > 0 {
            self.taps.push(&TapEntry::Gap(ticks));
        }
    }

    /// Returns the number of ticks that were due since the last one.
    pub(super) fn ticks_missed(&self, now: Instant) -> u32 {
        let ticks =
            now.saturating_duration_since(self.ticked_at).as_millis() / u128::from(FRAME_MS);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// Returns the time of the next tick in the rhythm of the earlier ones.
    pub(super) fn next_tick(&self, now: Instant) -> Instant {
        let tick = Duration::from_millis(FRAME_MS.into());
        let since = now.saturating_duration_since(self.ticked_at).as_micros() % tick.as_micros();
        now + tick - Duration::from_micros(u64::try_from(since).unwrap_or_default())
    }

    /// Returns the peer's address for DTLS and RTP. `None` before the leg is connected.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        self.network.peer_address()
    }

    /// Returns whether this side sends the ICE checks. Otherwise the peer does, which is then a
    /// browser.
    pub(super) fn is_controlling(&self) -> bool {
        self.network.controlling
    }

    /// Returns whether ICE or DTLS is in progress.
    pub(super) fn is_connecting(&self) -> bool {
        self.started && self.is_unconnected()
    }

    /// Returns whether the leg has no media path yet but may still get one.
    pub(super) fn is_unconnected(&self) -> bool {
        !self.network.connected && !self.reporter.has_ended()
    }

    /// Returns whether the leg's datagrams must be read as they arrive, because it connects, is
    /// tapped, or sends live audio.
    pub(super) fn is_live(&self) -> bool {
        self.is_unconnected() || !self.taps.is_empty() || self.outbound.audio.is_live()
    }

    /// Returns whether a DTLS handshake is in progress.
    pub(super) fn is_handshaking(&self) -> bool {
        self.network.ice_up && self.is_unconnected()
    }

    /// Returns whether the peer is known to use this SSRC.
    pub(super) fn has_ssrc(&self, ssrc: u32) -> bool {
        self.network.has_ssrc(ssrc)
    }

    /// Returns the number of received RTP packets that were authentic.
    pub(super) fn packets_received(&self) -> u64 {
        self.reporter.packets_received()
    }

    /// Returns whether a STUN request is authenticated with our password.
    pub(super) fn authenticates_request(&self, request: &[u8]) -> bool {
        self.network.authenticates_request(request)
    }

    /// Returns whether a STUN response is authenticated with the peer's password.
    pub(super) fn authenticates_response(&self, response: &[u8]) -> bool {
        self.network.authenticates_response(response)
    }

    /// Returns the numbers of received and sent RTP packets since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        self.reporter.take_counts()
    }

    /// Executes a command. After `Close` the leg must be dropped.
    pub(super) fn execute(&mut self, now: Instant, command: LegCommand, out: &mut SendBuffer) {
        let audio = &mut self.outbound.audio;
        match command {
            LegCommand::Begin => self.started = true,
            LegCommand::Open => {
                self.open = true;
                self.network.open(now);
                self.watchdog.get_or_insert(AudioWatchdog::new(now));
            }
            LegCommand::Play(play, items) => audio.player = Some(Player::new(play, items)),
            LegCommand::Stop(play) => {
                audio.player.take_if(|p| p.play() == play);
                if let Some(layers) = &mut audio.layers {
                    layers.stop(play);
                }
                self.outbound.digits.stop(play);
            }
            LegCommand::Pause(play, on) => {
                if let Some(player) = audio.player.as_mut().filter(|p| p.play() == play) {
                    player.pause(on);
                }
            }
            LegCommand::Overlay(play, aside, items) => {
                audio.layers.get_or_insert_default().play(play, &aside, items)
            }
            LegCommand::SendDigits(play, digits) => {
                self.outbound.digits.push(play, &digits, &self.reporter)
            }
            LegCommand::DetectVoice(on) => {
                self.inbound.update_detector(|detector| detector.detect_voice(on))
            }
            LegCommand::DetectBeep(settings) => {
                self.inbound.update_detector(|detector| detector.detect_beep(settings))
            }
            LegCommand::Bridge(end) => {
                audio.bridge = Some(end);
                self.outbound.due_ticks = 0;
            }
            LegCommand::Unbridge => audio.bridge = None,
            LegCommand::Feed(end) => audio.feed = Some(end),
            LegCommand::RoomFeed(end) => audio.room = Some(end),
            LegCommand::Tap(tap) => self.taps.add(tap),
            LegCommand::Mute(on) => self.inbound.muted = on,
            LegCommand::Close => {
                self.reporter.end();
                let (network, mut handler) = self.split();
                network.send_goodbye(now, &mut handler, out);
            }
        }
    }

    /// Runs the leg's 20 ms tick: timers, and the packets that are due.
    pub(super) fn tick(&mut self, now: Instant, out: &mut SendBuffer) {
        self.ticked_at = now;
        self.inbound.tick(now, &self.reporter);
        if self.network.is_silent(now, self.media_dead) {
            self.reporter.fail(MediaFault::Silent);
        }
        self.check_audio(now);
        if self.network.connected && self.open {
            let Self { network, reporter, taps, .. } = self;
            self.outbound.tick(now, &mut PacketSink { network, reporter, taps, out });
            self.taps.push(&TapEntry::Tick);
            let (network, mut handler) = self.split();
            network.maintain(now, &mut handler, out);
        } else if self.started || !self.network.controlling {
            let (network, mut handler) = self.split();
            network.connect(now, &mut handler, out);
        }
    }

    /// Splits the leg into its network side and the parts that received packets change.
    fn split(&mut self) -> (&mut Network, PacketHandler<'_>) {
        let Self { network, inbound, reporter, taps, outbound, .. } = self;
        let bridge = outbound.audio.bridge.as_deref();
        (network, PacketHandler { inbound, reporter, taps, bridge })
    }

    /// If a check is due and audio is missing, reports the first missing step of the set-up.
    fn check_audio(&mut self, now: Instant) {
        let Network { ice_up, connected, controlling, .. } = self.network;
        let missing = match (ice_up, connected, self.inbound.has_received) {
            (_, _, true) => None,
            (_, true, false) => Some(MissingStep::Packet),
            (true, false, false) => Some(MissingStep::Handshake),
            (false, false, false) => Some(MissingStep::Check),
        };
        if let Some((missing, waited)) =
            self.watchdog.as_mut().and_then(|watchdog| watchdog.check(now, missing))
        {
            self.reporter.report(LegEvent::NoAudio { missing, waited, checking: controlling });
        }
    }

    /// Makes str0m carry the RTP, as if there were no usable keys.
    #[cfg(test)]
    pub(crate) fn disable_transport(&mut self) {
        self.network.disable_transport();
    }

    /// Returns whether the leg carries its RTP without str0m.
    #[cfg(test)]
    pub(crate) fn has_transport(&self) -> bool {
        self.network.transport.is_some()
    }
}
