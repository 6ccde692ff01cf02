//! The peer's packets after decryption: digits, detection of voice and beeps, and copies of the
//! audio for the bridge and the taps.

use std::time::Instant;

use super::reporter::Reporter;
use crate::LegEvent;
use crate::audio_detector::AudioDetector;
use crate::bridge::BridgeEnd;
use crate::dtmf;
use crate::jitter_buffer::InboundPacket;
use crate::prompt::Frame;
use crate::tap::{TapEntry, Taps};
use crate::tones::ToneReceiver;
use crate::transport::ReceivedPacket;
use machine::MediaEvent;
use model::Digit;

/// Amount of received audio after which the peer of a call that we placed counts as having picked
/// up (docs/reference/meta.md#business-initiated-calls).
const FLOWING_MS: u32 = 500;

/// State of the peer's media.
pub(super) struct Inbound {
    opus_pt: u8,
    pub(super) has_received: bool,
    /// Whether the peer is muted. Its keys still count.
    pub(super) muted: bool,
    /// Packets left until half a second of the peer's audio has arrived. `None` if that is not
    /// reported.
    packets_until_flowing: Option<u32>,
    telephone_events: Vec<u8>,
    events: dtmf::Receiver,
    /// DTMF as tones, if no telephone-event was negotiated.
    tones: Option<Box<ToneReceiver>>,
    /// Reused buffer for the digits of a packet.
    digits: Vec<Digit>,
    /// Present while voice or a beep is to be detected.
    detector: Option<Box<AudioDetector>>,
}

impl Inbound {
    /// `flowing_packet_ms` is the length of the peer's packets if [`MediaEvent::Flowing`] is to be
    /// reported.
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
        }
    }

    /// Changes the settings of the detector, which is dropped when nothing is left to detect.
    pub(super) fn update_detector(&mut self, change: impl FnOnce(&mut AudioDetector)) {
        let mut detector = self.detector.take().unwrap_or_else(|| Box::new(AudioDetector::new()));
        change(&mut detector);
        self.detector = Some(detector).filter(|detector| detector.is_active());
    }

    /// Reports the digits and the silence that can be inferred after some time without packets.
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

/// Processes decrypted packets: the parts of a leg that they change.
pub(super) struct PacketHandler<'a> {
    pub(super) inbound: &'a mut Inbound,
    pub(super) reporter: &'a mut Reporter,
    pub(super) taps: &'a mut Taps,
    pub(super) bridge: Option<&'a BridgeEnd>,
}

impl PacketHandler<'_> {
    /// Processes a packet that authenticated and is no replay.
    pub(super) fn handle(&mut self, now: Instant, packet: &ReceivedPacket<'_>) {
        let inbound = &mut *self.inbound;
        let is_sound = packet.payload_type == inbound.opus_pt;
        let is_key = !is_sound && inbound.telephone_events.contains(&packet.payload_type);
        if !is_sound && !is_key {
            // Not a negotiated payload type: a sign of life, nothing else.
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
