//! A leg's network side: what its datagrams mean, its agent's life, and its RTP, which is its own as soon as DTLS has agreed on
//! keys (`transport`), and the agent's where that is not to be had.
//!
//! While the own path serves, the agent sees STUN and DTLS only, and nothing of RTP or RTCP that it would send goes out:
//! both under the same keys would give packets away (RFC 3711 §9.1).

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Event, Input, Output, RtcError};

use super::{Leg, count};
use crate::LegEvent;
use crate::agent::carry_rtp;
use crate::inlet::Heard;
use crate::outbox::Outbox;
use crate::prompt::Frame;
use crate::rtp::{Looks, looks};
use crate::stun;
use crate::tap::Tapped;
use crate::transport::{Making, Received, Sending, Transport};
use machine::{MediaEvent, MediaFault};

/// SSRCs of the peer that the agent knows at a time; more than one comes of a change on its side.
const SSRCS_MAX: usize = 4;
/// A path on which nothing has come for so long may be left for one that the peer nominates.
const PATH_SILENT: Duration = Duration::from_secs(1);

impl Leg {
    /// Takes in a datagram that is this leg's: STUN that passed its check, anything else from an address that did.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Outbox,
    ) {
        let looks = looks(datagram);
        if let Some(mut transport) = self.transport.take_if(|_| looks != Looks::Other) {
            match looks {
                Looks::Rtp => {
                    if let Some(received) = transport.rtp(now, datagram) {
                        self.heard(now, &received);
                    }
                }
                Looks::Rtcp => {
                    if transport.rtcp(now, datagram) {
                        self.last_valid = now;
                    }
                }
                Looks::Other => {}
            }
            self.transport = Some(transport);
            if self.last_valid == now && self.path == Some(from) {
                self.path_heard = now;
            }
            return;
        }
        let Some(home) = self.homes.towards(from.ip()) else { return };
        let Ok(received) = Receive::new(Protocol::Udp, from, home, datagram) else { return };
        let kind = stun::kind(datagram);
        if kind != stun::Kind::Else {
            self.last_valid = now;
            self.follow(now, from, datagram);
        }
        if let (stun::Kind::Response(_), Some(checks)) = (kind, &mut self.checks) {
            checks.answered(from);
        }
        self.trial = None;
        if let Some(ssrc) = rtp_ssrc(looks, datagram).filter(|s| !self.ssrcs.contains(s)) {
            if !self.connected {
                return;
            }
            // Without the peer's word for it, an SSRC is only known by a packet that authenticates (R19): the
            // stream is taken back below if this one does not.
            self.rtc.direct_api().expect_stream_rx(ssrc.into(), None, self.mid, None);
            self.trial = Some(ssrc);
        }
        // Bad DTLS and the like: nothing to be told; if it cost the agent its life, the poll says so.
        let _ = self.rtc.handle_input(Input::Receive(now, received));
        self.poll(now, out);
        if let Some(stranger) = self.trial.take() {
            self.rtc.direct_api().remove_stream_rx(stranger.into());
        }
    }

    /// Where the peer checks us, it says by nominating where it is. The latest word counts as soon as the path before is
    /// silent: some nominate every path they have, and the agent leaves one only after 15 s.
    fn follow(&mut self, now: Instant, from: SocketAddr, stun: &[u8]) {
        if self.path == Some(from) {
            self.path_heard = now;
        } else if !self.controlling
            && self.transport.is_some()
            && now.saturating_duration_since(self.path_heard) >= PATH_SILENT
            && stun::nominates(stun)
        {
            tracing::debug!("the peer of a leg has another address now");
            self.path = Some(from);
            self.path_heard = now;
        }
    }

    /// A packet of ours; `kind` is its payload type and marker, `at` when its timestamp was.
    pub(super) fn write(
        &mut self,
        at: Instant,
        kind: (u8, bool),
        timestamp: u32,
        payload: Frame,
        out: &mut Outbox,
    ) {
        let (payload_type, marker) = kind;
        let sequence = self.sequence;
        let sent = match (&mut self.transport, self.path) {
            (Some(transport), Some(to)) => {
                let payload = &payload;
                transport.send(
                    to,
                    Sending { payload_type, marker, sequence, timestamp, payload, at },
                    out,
                )
            }
            (Some(_), None) => false,
            (None, _) => {
                let write =
                    RtpWrite::new(payload_type.into(), sequence.into(), timestamp, at, payload)
                        .marker(marker);
                let stream = self
                    .rtc
                    .direct_api()
                    .stream_tx_by_mid(self.mid, None)
                    .map(|s| s.write_rtp(write));
                stream.is_some()
            }
        };
        if sent {
            self.sequence += 1;
            if self.counters.rtp_out.load(Ordering::Relaxed) == 0 {
                self.tell(LegEvent::FirstSent);
            }
            count(&self.counters.rtp_out);
            self.uncounted.1 += 1;
        }
    }

    /// At each tick of an open leg: reports, what was measured, and the agent where it wants to be driven. What the
    /// agent was given to send it sends at once.
    pub(super) fn look_after(&mut self, now: Instant, out: &mut Outbox) {
        if let (Some(transport), Some(to)) = (&mut self.transport, self.path) {
            if let Some(quality) = transport.tick(now, to, out) {
                self.counters.quality.write(&quality);
            }
            if now < self.wake {
                return;
            }
        }
        self.drive(now, out);
    }

    /// RTCP BYE and DTLS close_notify.
    pub(super) fn say_goodbye(&mut self, now: Instant, out: &mut Outbox) {
        if let (Some(transport), Some(to)) = (&mut self.transport, self.path) {
            let quality = transport.goodbye(now, to, out);
            self.counters.quality.write(&quality);
        }
        if self.connected && self.rtc.close().is_ok() {
            self.drive(now, out);
        }
    }

    /// Moves the agent's time on and takes what comes of it.
    pub(super) fn drive(&mut self, now: Instant, out: &mut Outbox) {
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.poll(now, out);
    }

    fn poll(&mut self, now: Instant, out: &mut Outbox) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(wake)) => {
                    self.wake = wake;
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    let ours = self.transport.is_some() && looks(&t.contents) != Looks::Other;
                    if !ours {
                        if stun::kind(&t.contents) == stun::Kind::Else {
                            self.path = Some(t.destination);
                        }
                        if let Some(checks) = &mut self.checks {
                            checks.sent(now, t.destination, &t.contents);
                        }
                        out.push(t.destination, &t.contents);
                    }
                }
                Ok(Output::Event(event)) => self.agent_event(now, event),
                Err(error) => {
                    if !self.rtc.is_alive() {
                        self.lose(match error {
                            RtcError::RemoteSdp(_) => MediaFault::Fingerprint,
                            _ => MediaFault::DtlsFailed,
                        });
                    }
                    return;
                }
            }
        }
    }

    fn agent_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::IceConnectionStateChange(state) if state.is_connected() && !self.ice_up => {
                self.ice_up = true;
                self.tell(LegEvent::Fact(MediaEvent::IceUp));
                if self.dtls_client && self.rtc.direct_api().start_dtls(true).is_err() {
                    self.lose(MediaFault::DtlsFailed);
                }
            }
            // All our checks were in vain for 30 s. A browser checks us: there the silence tells.
            Event::IceConnectionStateChange(state)
                if state.is_disconnected() && self.connected && self.controlling =>
            {
                self.lose(MediaFault::Silent);
            }
            Event::Connected => {
                self.connected = true;
                self.checks = None;
                self.last_valid = now;
                self.take_over(now);
                self.tell(LegEvent::Fact(MediaEvent::Connected));
            }
            // Where ICE has the peer now: the agent sends nothing by which we would see it. What the peer nominates is
            // followed sooner.
            Event::PeerStats(stats) if self.controlling && self.transport.is_some() => {
                if let Some(pair) = stats.selected_candidate_pair {
                    self.path = Some(pair.remote.addr);
                }
            }
            Event::RtpPacket(packet) => self.heard_by_agent(now, &packet),
            // A sender report that authenticated. str0m keeps no window for SRTCP as it does for SRTP: one that was
            // sent before, or the same again, is no sign of life (R19).
            Event::SenderFeedback(report) => {
                let sent = Some(report.sender_info.ntp_time);
                if sent > self.last_report {
                    self.last_report = sent;
                    self.last_valid = now;
                }
            }
            Event::Closed => self.lose(MediaFault::DtlsClosed),
            _ => {}
        }
    }

    /// RTP is the leg's own from here on, before its first packet. Without keys that we can use it is the agent's.
    fn take_over(&mut self, now: Instant) {
        let (then, wall) = self.epoch;
        let making = Making {
            ssrc: self.ssrc,
            cname: std::mem::take(&mut self.cname),
            opus_pt: self.opus_pt,
            now,
            wall: wall.plus(now.saturating_duration_since(then)),
        };
        self.transport =
            self.keys.take().and_then(|keys| Transport::new(&keys, making)).map(Box::new);
        if self.transport.is_none() {
            carry_rtp(&mut self.rtc, self.mid, self.ssrc, self.ssrcs.iter().copied());
        }
    }

    /// A packet that the agent found authentic and no replay.
    fn heard_by_agent(&mut self, now: Instant, packet: &RtpPacket) {
        let ssrc = *packet.header.ssrc;
        if self.trial.take_if(|trial| *trial == ssrc).is_some() {
            if self.ssrcs.len() == SSRCS_MAX
                && let Some(oldest) = self.ssrcs.pop_front()
            {
                self.rtc.direct_api().remove_stream_rx(oldest.into());
            }
            self.ssrcs.push_back(ssrc);
        }
        let received = Received {
            payload_type: *packet.header.payload_type,
            ssrc,
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            payload: &packet.payload,
        };
        self.heard(now, &received);
    }

    /// A packet that authenticated and is no replay.
    fn heard(&mut self, now: Instant, packet: &Received<'_>) {
        self.last_valid = now;
        let is_sound = packet.payload_type == self.opus_pt;
        let is_key = !is_sound && self.telephone_events.contains(&packet.payload_type);
        if !is_sound && !is_key {
            // Nothing that was agreed on: a sign of life, and no more.
            return;
        }
        count(&self.counters.rtp_in);
        self.uncounted.0 += 1;
        if !std::mem::replace(&mut self.heard, true) {
            self.tell(LegEvent::Fact(MediaEvent::FirstPacket));
        }
        self.flowing_in = self.flowing_in.map(|left| left.saturating_sub(1));
        if self.flowing_in.take_if(|left| *left == 0).is_some() {
            self.tell(LegEvent::Fact(MediaEvent::Flowing));
        }
        let Received { ssrc, timestamp, payload, .. } = *packet;
        if is_key {
            let mut digits = std::mem::take(&mut self.digits);
            self.receiver.packet(now, ssrc, timestamp, payload, &mut digits);
            self.tell_digits(digits);
        } else {
            if let Some(sounds) = &mut self.in_band {
                let mut digits = std::mem::take(&mut self.digits);
                sounds.packet(payload, &mut digits);
                self.tell_digits(digits);
            }
            self.sound(now, packet);
        }
    }

    /// A packet of the peer's sound, for whoever hears it.
    fn sound(&mut self, now: Instant, packet: &Received<'_>) {
        if self.muted {
            return;
        }
        let Received { ssrc, sequence, timestamp, payload, .. } = *packet;
        if self.bridge.is_some() || !self.taps.is_empty() {
            let heard = Heard { ssrc, sequence, timestamp, payload: Frame::from(payload) };
            if !self.taps.is_empty() {
                self.copy(&Tapped::Heard(heard.clone()));
            }
            if let Some(bridge) = &self.bridge {
                bridge.pass(heard);
            }
        }
        if let Some(ear) = &mut self.ear {
            let told = ear.packet(now, payload);
            told.into_iter().flatten().for_each(|voice| self.tell(LegEvent::Voice(voice)));
        }
    }

    /// RTP stays the agent's, as where the keys are of no use to us.
    #[cfg(test)]
    pub(crate) fn without_own_path(&mut self) {
        self.keys = crate::dtls::Keyring::default();
    }

    /// Whether RTP is the leg's own.
    #[cfg(test)]
    pub(crate) fn has_own_path(&self) -> bool {
        self.transport.is_some()
    }
}

fn rtp_ssrc(looks: Looks, datagram: &[u8]) -> Option<u32> {
    let ssrc = datagram.get(8..12)?.try_into().ok()?;
    (looks == Looks::Rtp).then(|| u32::from_be_bytes(ssrc))
}
