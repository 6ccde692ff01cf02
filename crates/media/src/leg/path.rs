//! The network side of a leg: its datagrams, the events of str0m, and its RTP, which [`Transport`]
//! carries once DTLS has negotiated keys. Without usable keys, str0m carries it.
//!
//! While a transport exists, str0m is given STUN and DTLS only, and RTP or RTCP from it is not
//! sent. Two senders under the same keys would break the encryption (RFC 3711 §9.1).

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Event, Input, Output, RtcError};

use super::{Leg, count};
use crate::LegEvent;
use crate::ice::enable_rtp;
use crate::jitter_buffer::InboundPacket;
use crate::prompt::Frame;
use crate::rtp::{PacketKind, packet_kind};
use crate::send_buffer::SendBuffer;
use crate::stun;
use crate::tap::TapEntry;
use crate::transport::{OutgoingPacket, ReceivedPacket, Transport, TransportConfig};
use machine::{MediaEvent, MediaFault};

/// SSRCs of the peer that str0m knows at a time. More than one means that the peer changed its
/// SSRC.
const SSRCS_MAX: usize = 4;
/// A path may be replaced by a nominated one if nothing has arrived on it for this long.
const PATH_SILENT: Duration = Duration::from_secs(1);

impl Leg {
    /// Processes a datagram of this leg: authenticated STUN, or anything else from an address from
    /// which such STUN came.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut SendBuffer,
    ) {
        let kind = packet_kind(datagram);
        if let Some(mut transport) = self.transport.take_if(|_| kind != PacketKind::Other) {
            match kind {
                PacketKind::Rtp => {
                    if let Some(received) = transport.receive_rtp(now, datagram) {
                        self.on_packet(now, &received);
                    }
                }
                PacketKind::Rtcp => {
                    if transport.receive_rtcp(now, datagram) {
                        self.last_valid = now;
                    }
                }
                PacketKind::Other => {}
            }
            self.transport = Some(transport);
            if self.last_valid == now && self.path == Some(from) {
                self.path_active_at = now;
            }
            return;
        }
        let Some(local) = self.local_addresses.for_peer(from.ip()) else { return };
        let Ok(received) = Receive::new(Protocol::Udp, from, local, datagram) else { return };
        let stun_kind = stun::classify(datagram);
        if stun_kind != stun::Kind::NotStun {
            self.last_valid = now;
            self.follow_nomination(now, from, datagram);
        }
        if let (stun::Kind::Response(_), Some(checks)) = (stun_kind, &mut self.checks) {
            checks.note_response(from);
        }
        self.trial = None;
        if let Some(ssrc) = rtp_ssrc(kind, datagram).filter(|s| !self.ssrcs.contains(s)) {
            if !self.connected {
                return;
            }
            // An SSRC that the SDP does not announce is accepted only with a packet that
            // authenticates. If this one does not, the stream is removed again below.
            self.rtc.direct_api().expect_stream_rx(ssrc.into(), None, self.mid, None);
            self.trial = Some(ssrc);
        }
        // Invalid input is ignored. If it ended the instance, `poll` reports that.
        let _ = self.rtc.handle_input(Input::Receive(now, received));
        self.poll(now, out);
        if let Some(ssrc) = self.trial.take() {
            self.rtc.direct_api().remove_stream_rx(ssrc.into());
        }
    }

    /// Follows the peer to another address if it nominates one and the old path is silent. Only the
    /// checking side nominates. Some peers nominate every path they have, and str0m leaves a path
    /// only after 15 s.
    fn follow_nomination(&mut self, now: Instant, from: SocketAddr, stun: &[u8]) {
        if self.path == Some(from) {
            self.path_active_at = now;
        } else if !self.controlling
            && self.transport.is_some()
            && now.saturating_duration_since(self.path_active_at) >= PATH_SILENT
            && stun::is_nomination(stun)
        {
            tracing::debug!("peer nominated another address");
            self.path = Some(from);
            self.path_active_at = now;
        }
    }

    /// Sends an RTP packet. `kind` is its payload type and marker bit, `at` the time of its
    /// timestamp.
    pub(super) fn send(
        &mut self,
        at: Instant,
        kind: (u8, bool),
        timestamp: u32,
        payload: Frame,
        out: &mut SendBuffer,
    ) {
        let (payload_type, marker) = kind;
        let sequence = self.sequence;
        let sent = match (&mut self.transport, self.path) {
            (Some(transport), Some(to)) => {
                let payload = &payload;
                transport.send(
                    to,
                    OutgoingPacket { payload_type, marker, sequence, timestamp, payload, at },
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
                self.report(LegEvent::FirstSent);
            }
            count(&self.counters.rtp_out);
            self.uncounted.1 += 1;
        }
    }

    /// Periodic work of an open leg: reports, quality figures, and str0m's timers. Without a
    /// transport, str0m is driven at every tick, so that it sends the packet it was given.
    pub(super) fn maintain(&mut self, now: Instant, out: &mut SendBuffer) {
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

    /// Sends RTCP BYE and DTLS close_notify.
    pub(super) fn send_goodbye(&mut self, now: Instant, out: &mut SendBuffer) {
        if let (Some(transport), Some(to)) = (&mut self.transport, self.path) {
            let quality = transport.send_bye(now, to, out);
            self.counters.quality.write(&quality);
        }
        if self.connected && self.rtc.close().is_ok() {
            self.drive(now, out);
        }
    }

    /// Advances str0m's time and processes its output.
    pub(super) fn drive(&mut self, now: Instant, out: &mut SendBuffer) {
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.poll(now, out);
    }

    fn poll(&mut self, now: Instant, out: &mut SendBuffer) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(wake)) => {
                    self.wake = wake;
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    let is_rtp =
                        self.transport.is_some() && packet_kind(&t.contents) != PacketKind::Other;
                    if !is_rtp {
                        if stun::classify(&t.contents) == stun::Kind::NotStun {
                            self.path = Some(t.destination);
                        }
                        if let Some(checks) = &mut self.checks {
                            checks.note_sent(now, t.destination, &t.contents);
                        }
                        out.push(t.destination, &t.contents);
                    }
                }
                Ok(Output::Event(event)) => self.on_event(now, event),
                Err(error) => {
                    if !self.rtc.is_alive() {
                        self.fail(match error {
                            RtcError::RemoteSdp(_) => MediaFault::Fingerprint,
                            _ => MediaFault::DtlsFailed,
                        });
                    }
                    return;
                }
            }
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::IceConnectionStateChange(state) if state.is_connected() && !self.ice_up => {
                self.ice_up = true;
                self.report(LegEvent::Media(MediaEvent::IceUp));
                if self.dtls_client && self.rtc.direct_api().start_dtls(true).is_err() {
                    self.fail(MediaFault::DtlsFailed);
                }
            }
            // Our checks were not answered for 30 s. If the peer checks us, the media timeout
            // notices.
            Event::IceConnectionStateChange(state)
                if state.is_disconnected() && self.connected && self.controlling =>
            {
                self.fail(MediaFault::Silent);
            }
            Event::Connected => {
                self.connected = true;
                self.checks = None;
                self.last_valid = now;
                self.start_transport(now);
                self.report(LegEvent::Media(MediaEvent::Connected));
            }
            // ICE has selected another pair. Nothing that str0m sends shows us the new address. A
            // nomination of the peer is followed earlier.
            Event::PeerStats(stats) if self.controlling && self.transport.is_some() => {
                if let Some(pair) = stats.selected_candidate_pair {
                    self.path = Some(pair.remote.addr);
                }
            }
            Event::RtpPacket(packet) => self.on_agent_packet(now, &packet),
            // An authentic sender report. str0m has no replay window for SRTCP, so a repeated or
            // older report is no sign of life.
            Event::SenderFeedback(report) => {
                let sent = Some(report.sender_info.ntp_time);
                if sent > self.last_report {
                    self.last_report = sent;
                    self.last_valid = now;
                }
            }
            Event::Closed => self.fail(MediaFault::DtlsClosed),
            _ => {}
        }
    }

    /// Takes the RTP over from str0m before the first packet, or leaves it to str0m if there are no
    /// usable keys.
    fn start_transport(&mut self, now: Instant) {
        let (then, wall) = self.epoch;
        let config = TransportConfig {
            ssrc: self.ssrc,
            cname: std::mem::take(&mut self.cname),
            opus_pt: self.opus_pt,
            now,
            wall: wall.plus(now.saturating_duration_since(then)),
        };
        self.transport =
            self.keys.take().and_then(|keys| Transport::new(&keys, config)).map(Box::new);
        if self.transport.is_none() {
            enable_rtp(&mut self.rtc, self.mid, self.ssrc, self.ssrcs.iter().copied());
        }
    }

    /// Processes a packet that str0m has authenticated and checked for replay.
    fn on_agent_packet(&mut self, now: Instant, packet: &RtpPacket) {
        let ssrc = *packet.header.ssrc;
        if self.trial.take_if(|trial| *trial == ssrc).is_some() {
            if self.ssrcs.len() == SSRCS_MAX
                && let Some(oldest) = self.ssrcs.pop_front()
            {
                self.rtc.direct_api().remove_stream_rx(oldest.into());
            }
            self.ssrcs.push_back(ssrc);
        }
        let received = ReceivedPacket {
            payload_type: *packet.header.payload_type,
            ssrc,
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            payload: &packet.payload,
        };
        self.on_packet(now, &received);
    }

    /// Processes a packet that authenticated and is no replay.
    fn on_packet(&mut self, now: Instant, packet: &ReceivedPacket<'_>) {
        self.last_valid = now;
        let is_sound = packet.payload_type == self.opus_pt;
        let is_key = !is_sound && self.telephone_events.contains(&packet.payload_type);
        if !is_sound && !is_key {
            // Not a negotiated payload type: a sign of life, nothing else.
            return;
        }
        count(&self.counters.rtp_in);
        self.uncounted.0 += 1;
        if !std::mem::replace(&mut self.has_received, true) {
            self.report(LegEvent::Media(MediaEvent::FirstPacket));
        }
        self.packets_until_flowing = self.packets_until_flowing.map(|left| left.saturating_sub(1));
        if self.packets_until_flowing.take_if(|left| *left == 0).is_some() {
            self.report(LegEvent::Media(MediaEvent::Flowing));
        }
        let ReceivedPacket { ssrc, timestamp, payload, .. } = *packet;
        if is_key {
            let mut digits = std::mem::take(&mut self.digits);
            self.receiver.receive(now, ssrc, timestamp, payload, &mut digits);
            self.report_digits(digits);
        } else {
            if let Some(in_band) = &mut self.in_band {
                let mut digits = std::mem::take(&mut self.digits);
                in_band.push_packet(payload, &mut digits);
                self.report_digits(digits);
            }
            self.deliver_audio(now, packet);
        }
    }

    /// Passes a packet of the peer's audio to the taps, the bridge and the detector.
    fn deliver_audio(&mut self, now: Instant, packet: &ReceivedPacket<'_>) {
        if self.muted {
            return;
        }
        let ReceivedPacket { ssrc, sequence, timestamp, payload, .. } = *packet;
        if self.bridge.is_some() || !self.taps.is_empty() {
            let packet = InboundPacket { ssrc, sequence, timestamp, payload: Frame::from(payload) };
            if !self.taps.is_empty() {
                self.copy_to_taps(&TapEntry::Received(packet.clone()));
            }
            if let Some(bridge) = &self.bridge {
                bridge.send(packet);
            }
        }
        if let Some(detector) = &mut self.detector {
            let events = detector.push_packet(now, payload);
            events.into_iter().flatten().for_each(|voice| self.report(LegEvent::Voice(voice)));
        }
    }

    /// Makes str0m keep the RTP, as without usable keys.
    #[cfg(test)]
    pub(crate) fn disable_transport(&mut self) {
        self.keys = crate::dtls::KeyCell::default();
    }

    /// Returns whether the leg carries its own RTP.
    #[cfg(test)]
    pub(crate) fn has_transport(&self) -> bool {
        self.transport.is_some()
    }
}

fn rtp_ssrc(kind: PacketKind, datagram: &[u8]) -> Option<u32> {
    let ssrc = datagram.get(8..12)?.try_into().ok()?;
    (kind == PacketKind::Rtp).then(|| u32::from_be_bytes(ssrc))
}
