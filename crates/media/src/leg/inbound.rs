//! The peer's packets after decryption: digits, detection of voice and beeps, and copies of the
//! audio for the bridge and the taps.

use std::time::Instant;

use super::quota::PeerQuota;
use super::reporter::Reporter;
use crate::LegEvent;
use crate::audio_detector::{AudioDetector, AudioDetectorState};
use crate::bridge::BridgeEnd;
use crate::dtmf;
use crate::jitter_buffer::InboundPacket;
use crate::prompt::Frame;
use crate::snapshot::TimeBase;
use crate::tap::{TapEntry, Taps};
use crate::tones::{ToneDetector, ToneReceiver};
use crate::transport::ReceivedPacket;
use machine::MediaEvent;
use model::{Digit, metric};
use serde::{Deserialize, Serialize};

/// Amount of received audio after which the peer of an outbound call counts as having answered
/// (docs/reference/meta.md#business-initiated-calls).
const FLOWING_MS: u32 = 500;

/// The state of the media from the peer.
pub(super) struct Inbound {
    opus_pt: u8,
    pub(super) has_received: bool,
    /// Whether the peer is muted. Its keys still count.
    pub(super) muted: bool,
    /// The number of further packets until half a second of the peer's audio has arrived. `None` if
    /// this is not reported.
    packets_until_flowing: Option<u32>,
    telephone_events: Vec<u8>,
    events: dtmf::Receiver,
    /// Receives DTMF as tones, if no telephone-event was negotiated.
    tones: Option<Box<ToneReceiver>>,
    /// A buffer for the digits of a packet, which is reused.
    digits: Vec<Digit>,
    /// The detector of voice and beeps. `None` while neither is detected.
    detector: Option<Box<AudioDetector>>,
    pub(super) quota: PeerQuota,
}

/// The state of an [`Inbound`] in the snapshot of a leg.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InboundState {
    opus_pt: u8,
    has_received: bool,
    muted: bool,
    packets_until_flowing: Option<u32>,
    telephone_events: Vec<u8>,
    events: dtmf::ReceiverState,
    tones: Option<ToneDetector>,
    detector: Option<AudioDetectorState>,
}

impl Inbound {
    pub(super) fn snapshot(&self, base: TimeBase) -> InboundState {
        InboundState {
            opus_pt: self.opus_pt,
            has_received: self.has_received,
            muted: self.muted,
            packets_until_flowing: self.packets_until_flowing,
            telephone_events: self.telephone_events.clone(),
            events: self.events.snapshot(base),
            tones: self.tones.as_ref().map(|tones| tones.snapshot()),
            detector: self.detector.as_ref().map(|detector| detector.snapshot(base)),
        }
    }

    pub(super) fn restore(state: InboundState, base: TimeBase) -> Self {
        Self {
            opus_pt: state.opus_pt,
            has_received: state.has_received,
            muted: state.muted,
            packets_until_flowing: state.packets_until_flowing,
            telephone_events: state.telephone_events,
            events: dtmf::Receiver::restore(state.events, base),
            tones: state.tones.map(|tones| Box::new(ToneReceiver::restore(tones))),
            digits: Vec::new(),
            detector: state
                .detector
                .map(|detector| Box::new(AudioDetector::restore(detector, base))),
            quota: PeerQuota::default(),
        }
    }

    /// Creates the state. `flowing_packet_ms` is the length of the peer's packets if
    /// [`MediaEvent::Flowing`] is to be reported.
    pub(super) fn new(
        opus_pt: u8,
        telephone_events: Vec<u8>,
        with_tones: bool,
        flowing_packet_ms: Option<u32>,
    ) -> Self {
        Self {
            opus_pt,
            has_received: false,
            muted: false,
            packets_until_flowing: flowing_packet_ms.map(|ms| FLOWING_MS.div_ceil(ms.max(1))),
            telephone_events,
            events: dtmf::Receiver::default(),
            tones: with_tones.then(|| Box::new(ToneReceiver::new())),
            digits: Vec::new(),
            detector: None,
            quota: PeerQuota::default(),
        }
    }

    /// Changes the settings of the detector. It is dropped when it has nothing to detect.
    pub(super) fn update_detector(&mut self, change: impl FnOnce(&mut AudioDetector)) {
        let mut detector = self.detector.take().unwrap_or_else(|| Box::new(AudioDetector::new()));
        change(&mut detector);
        self.detector = Some(detector).filter(|detector| detector.is_active());
    }

    /// Reports the digits and the silence that follow from the absence of packets.
    pub(super) fn tick(&mut self, now: Instant, reporter: &Reporter) {
        self.events.tick(now, &mut self.digits);
        self.report_digits(reporter);
        if let Some(detector) = &mut self.detector {
            let events = detector.tick(now);
            events.into_iter().flatten().for_each(|voice| reporter.report(LegEvent::Voice(voice)));
        }
    }

    fn report_digits(&mut self, reporter: &Reporter) {
        for digit in self.digits.drain(..) {
            reporter.report(LegEvent::Digit(digit));
        }
    }
}

/// Counts a packet that was dropped because its peer sends too much.
pub(crate) fn count_excess() {
    metrics::counter!(metric::MEDIA_EXCESS_PACKETS_TOTAL).increment(1);
}

/// The parts of a leg that process decrypted packets.
pub(super) struct PacketHandler<'a> {
    pub(super) inbound: &'a mut Inbound,
    pub(super) reporter: &'a mut Reporter,
    pub(super) taps: &'a mut Taps,
    pub(super) bridge: Option<&'a BridgeEnd>,
}

impl PacketHandler<'_> {
    /// Processes a packet that is authentic and not a replay.
    pub(super) fn handle(&mut self, now: Instant, packet: &ReceivedPacket<'_>) {
        let inbound = &mut *self.inbound;
        let is_sound = packet.payload_type == inbound.opus_pt;
        let is_key = !is_sound && inbound.telephone_events.contains(&packet.payload_type);
        if !is_sound && !is_key {
            // The payload type was not negotiated. The packet only shows that the peer is alive.
            return;
        }
        if is_sound && !inbound.quota.take_audio(now, packet.payload) {
            count_excess();
            return;
        }
        self.reporter.count_received();
        if !std::mem::replace(&mut inbound.has_received, true) {
            self.reporter.report(LegEvent::Media(MediaEvent::FirstPacket));
        }
        inbound.packets_until_flowing =
            inbound.packets_until_flowing.map(|left| left.saturating_sub(1));
        if inbound.packets_until_flowing.take_if(|left| *left == 0).is_some() {
            self.reporter.report(LegEvent::Media(MediaEvent::Flowing));
        }
        let ReceivedPacket { ssrc, timestamp, payload, .. } = *packet;
        if is_key {
            inbound.events.receive(now, ssrc, timestamp, payload, &mut inbound.digits);
            inbound.report_digits(self.reporter);
        } else {
            if let Some(tones) = &mut inbound.tones {
                tones.push_packet(payload, &mut inbound.digits);
                inbound.report_digits(self.reporter);
            }
            self.deliver_audio(now, packet);
        }
    }

    /// Passes a packet of the peer's audio to the taps, the bridge and the detector.
    fn deliver_audio(&mut self, now: Instant, packet: &ReceivedPacket<'_>) {
        if self.inbound.muted {
            return;
        }
        let ReceivedPacket { ssrc, sequence, timestamp, payload, .. } = *packet;
        if self.bridge.is_some() || !self.taps.is_empty() {
            let packet = InboundPacket { ssrc, sequence, timestamp, payload: Frame::from(payload) };
            if !self.taps.is_empty() {
                self.taps.push(&TapEntry::Received(packet.clone()));
            }
            if let Some(bridge) = self.bridge {
                bridge.send(packet);
            }
        }
        if let Some(detector) = &mut self.inbound.detector {
            let events = detector.push_packet(now, payload);
            events
                .into_iter()
                .flatten()
                .for_each(|voice| self.reporter.report(LegEvent::Voice(voice)));
        }
    }
}
