//! The media of a call towards the user or the endpoint's phone.

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::StartMode;
use super::context::Context;
use super::quality::FinalQuality;
use crate::call::captions::{CaptionOptions, CaptionServices, Captions};
use crate::call::handover::{HeldLeg, MovedPhone};
use crate::call::mailbox::{Mailbox, MuteReason};
use crate::call::phones::Line;
use machine::{Input, MediaCommand, MediaEvent, MediaFault};
use media::sdp::Offer;
use media::{BridgeEnd, LegHandle, OfferedLeg, OfferedLegSnapshot, PlayItem, Quality};
use model::{CallQuality, Leg};

/// State of the A-leg's media.
enum Media {
    /// Set-up failed, or the leg is closed.
    None,
    /// Our offer was sent; the answer is pending.
    Offered(Box<OfferedLeg>),
    /// The phone that accepts the call will send an offer.
    Awaited,
    Leg(LegHandle),
}

/// The A-leg: the media towards the user or the endpoint's phone.
pub(super) struct ALeg {
    media: Media,
    /// Our session description.
    pub(super) sdp: Arc<str>,
    /// Meta's answer to our offer, until the leg uses it.
    pub(super) answer: Option<Box<Offer>>,
    /// A bridge end, until the leg uses it.
    pub(super) bridge: Option<Box<BridgeEnd>>,
    /// Reasons why the phone's audio is muted.
    mute_reasons: Vec<MuteReason>,
    /// Live captions for the phone.
    captions: Option<Captions>,
    quality: FinalQuality,
}

impl ALeg {
    /// Sets up the media of a call in the way in which the call begins.
    pub(super) fn begin(
        media: &media::Media,
        mode: StartMode,
        mailbox: &Mailbox,
        line: Option<&Arc<Line>>,
    ) -> Self {
        let keys = line.map(|line| line.keys());
        let made = match mode {
            StartMode::Offered(offer) => {
                let answered = media.answer(&offer, mailbox.leg_events(keys));
                answered.map(|(leg, sdp)| (Media::Leg(leg), sdp))
            }
            StartMode::Placed => {
                media.offer().map(|(leg, sdp)| (Media::Offered(Box::new(leg)), sdp))
            }
            StartMode::Rung => Ok((Media::Awaited, String::new())),
        };
        let (media, sdp) = made.unwrap_or_else(|e| {
            warn!(error = %e, "media set-up failed");
            (Media::None, String::new())
        });
        Self::new(media, Arc::from(sdp))
    }

    /// Creates the A-leg of a call that another process has handed over. Without a leg, it is
    /// closed, or awaits its phone.
    pub(super) fn resumed(leg: HeldLeg, sdp: Arc<str>, phone: Option<&MovedPhone>) -> Self {
        let is_awaited = phone.is_some_and(|phone| phone.is_awaited);
        let media = if is_awaited { Media::Awaited } else { Media::None };
        let mut resumed = Self::new(media, sdp);
        resumed.resume(leg);
        resumed.mute_reasons = phone.map(|phone| phone.mute_reasons.clone()).unwrap_or_default();
        resumed
    }

    fn new(media: Media, sdp: Arc<str>) -> Self {
        Self {
            media,
            sdp,
            answer: None,
            bridge: None,
            mute_reasons: Vec::new(),
            captions: None,
            quality: FinalQuality::default(),
        }
    }

    /// Whether no answer to our offer waits to be used.
    pub(super) fn is_settled(&self) -> bool {
        self.answer.is_none()
    }

    /// Returns what another process needs to know of the connection to the phone. `None` without a
    /// phone.
    pub(super) fn phone(&self, line: Option<&Arc<Line>>) -> Option<MovedPhone> {
        Some(MovedPhone {
            line: line?.snapshot(),
            is_awaited: matches!(self.media, Media::Awaited),
            mute_reasons: self.mute_reasons.clone(),
            captions: self.captions.as_ref().map(Captions::options),
        })
    }

    /// Returns the state of the leg while our offer awaits its answer. `Err` if the leg cannot move.
    pub(super) fn offered(&self, media: &media::Media) -> Result<Option<OfferedLegSnapshot>, ()> {
        match &self.media {
            Media::Offered(leg) => media.snapshot_offered(leg).map(Some).ok_or(()),
            Media::None | Media::Awaited | Media::Leg(_) => Ok(None),
        }
    }

    /// Takes the leg while the call is suspended, and ends its captions.
    pub(super) fn suspend(&mut self) -> HeldLeg {
        self.captions = None;
        match std::mem::replace(&mut self.media, Media::None) {
            Media::Leg(leg) => HeldLeg { leg: Some(leg), offered: None },
            Media::Offered(leg) => HeldLeg { leg: None, offered: Some(leg) },
            without @ (Media::None | Media::Awaited) => {
                self.media = without;
                HeldLeg::default()
            }
        }
    }

    /// Gives the leg back.
    pub(super) fn resume(&mut self, HeldLeg { leg, offered }: HeldLeg) {
        if let Some(media) = leg.map(Media::Leg).or(offered.map(Media::Offered)) {
            self.media = media;
        }
    }

    /// Whether the set-up failed or the leg is closed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.media, Media::None)
    }

    /// Returns the leg, from its set-up to its close.
    pub(super) fn leg(&self) -> Option<&LegHandle> {
        match &self.media {
            Media::Leg(leg) => Some(leg),
            Media::None | Media::Offered(_) | Media::Awaited => None,
        }
    }

    /// Executes a command. `items` are the prompts that it plays.
    pub(super) fn execute(&mut self, call: &Context, command: MediaCommand, items: Vec<PlayItem>) {
        if command == MediaCommand::Begin {
            self.accept_answer(call);
        }
        let end = match command {
            MediaCommand::Join | MediaCommand::Unjoin => self.bridge.take(),
            _ => None,
        };
        let Media::Leg(leg) = &self.media else {
            if command == MediaCommand::Close {
                self.media = Media::None;
            }
            return;
        };
        match command {
            MediaCommand::Begin => leg.begin(),
            MediaCommand::Open => {
                leg.open();
                // The user may hear audio from now.
                call.view.sampler.begin(call.ms(call.services.clock.now()));
            }
            MediaCommand::Play { play, .. } => leg.play(play, items),
            MediaCommand::Overlay { play, overlay: aside } => leg.play_aside(play, aside, items),
            MediaCommand::Stop { play } => leg.stop(play),
            MediaCommand::PlayPause { play, on } => leg.pause(play, on),
            MediaCommand::SendDigits { play, digits } => leg.send_digits(play, &digits),
            MediaCommand::DetectVoice { on } => leg.detect_voice(on),
            MediaCommand::DetectBeep { settings: how } => leg.detect_beep(how),
            MediaCommand::Join => {
                if let Some(end) = end {
                    leg.bridge(*end);
                }
            }
            MediaCommand::Unjoin => leg.unbridge(),
            // `CallRecordings` executes these.
            MediaCommand::Record { .. }
            | MediaCommand::RecordStart { .. }
            | MediaCommand::RecordPause { .. }
            | MediaCommand::RecordStop { .. } => {}
            MediaCommand::Close => {
                let measured = leg.stats().quality;
                leg.close();
                self.media = Media::None;
                self.quality.set(call, &measured);
            }
        }
    }

    /// Applies Meta's answer to our offer.
    fn accept_answer(&mut self, call: &Context) {
        let Some(answer) = self.answer.take() else { return };
        let Media::Offered(leg) = std::mem::replace(&mut self.media, Media::None) else { return };
        let events = call.mailbox.leg_events(None);
        match call.services.media.accept_answer(*leg, &answer, events) {
            Ok(leg) => self.media = Media::Leg(leg),
            Err(error) => {
                warn!(%error, "media set-up failed");
                let event = MediaEvent::Lost { fault: MediaFault::DtlsFailed };
                call.tell(Input::Media { leg: Leg::A, event });
            }
        }
    }

    /// Answers the offer of the phone that accepts the call. Returns whether the leg is set up, or
    /// `None` if no phone is awaited.
    pub(super) fn answer_phone(
        &mut self,
        call: &Context,
        line: &Arc<Line>,
        offer: &Offer,
    ) -> Option<bool> {
        if !matches!(self.media, Media::Awaited) {
            return None;
        }
        match call.services.media.answer(offer, call.mailbox.leg_events(Some(line.keys()))) {
            Ok((leg, sdp)) => {
                self.media = Media::Leg(leg);
                self.sdp = sdp.into();
                Some(true)
            }
            Err(error) => {
                warn!(%error, "media set-up failed");
                Some(false)
            }
        }
    }

    /// Adds or removes a reason to mute the phone. The audio is muted while there is a reason.
    pub(super) fn mute(&mut self, reason: MuteReason, on: bool) {
        self.mute_reasons.retain(|other| *other != reason);
        if on {
            self.mute_reasons.push(reason);
        }
        if let Media::Leg(leg) = &self.media {
            leg.mute(!self.mute_reasons.is_empty());
        }
    }

    /// Starts captions, or stops them.
    pub(super) fn caption(&mut self, call: &Context, options: Option<CaptionOptions>) {
        self.captions = None;
        if let (Some(options), Media::Leg(leg), Some(phone)) = (options, &self.media, &call.line) {
            let services = &call.services;
            let maker = CaptionServices {
                workers: services.media.workers(),
                recognisers: &services.recognisers,
                tasks: &services.tasks,
                phone,
                account: &call.view.setup.parent_account,
            };
            self.captions = Some(Captions::begin(options, leg, &maker));
        }
    }

    /// Reads the leg's counters.
    pub(super) fn sample(&self, call: &Context, at: Instant) {
        // Without a leg there are no further counts.
        let measured = self.leg().map_or_else(Quality::default, |leg| leg.stats().quality);
        call.view.sampler.look(call.ms(at), &measured);
    }

    /// Returns the call's final quality and adds it to the metrics and the trace.
    pub(super) fn final_quality(&mut self, call: &Context) -> Option<CallQuality> {
        if let Media::Leg(leg) = &self.media {
            self.quality.set(call, &leg.stats().quality);
        }
        self.quality.take(call)
    }

    /// Ends the media and the captions.
    pub(super) fn end(&mut self) {
        self.captions = None;
        self.media = Media::None;
    }
}
