//! A B-leg that has been answered.
//!
//! It has no document. It waits for its A-leg's command, plays the confirmation and waits for its
//! key, sends digits, and is connected to the A-leg (docs/reference/xml.md#dial).
//!
//! A call that is placed for a multi-party call confirms in the same way, without an A-leg. Its
//! document runs afterwards.

use std::sync::Arc;

use super::activity::{Activity, Env, Progress, Readiness, StopReason};
use super::context::CallContext;
use super::digits::Key;
use super::element::add_participant;
use super::params::{COMPLETED, Event};
use super::snapshot::{SnapshotBuilder, word};
use super::sounds;
use super::timers::DocumentTimer;
use crate::contract::{
    BLegCommand, BLegEvent, Confirmation, FetchFailure, FetchId, FetchResponse, MediaCommand,
    Output, PlayId, SoundItem,
};
use model::HangupCause;
use xml::Document;
use xml::ast::{Repeat, Target};

/// Maximum duration of a sound that ends by itself, if the timeout of the key is not longer.
const SOUND_MAX_MS: u64 = 120_000;

/// The foreground of a called leg. See the [module documentation](self).
pub(super) struct CalledParty {
    confirm: Option<Confirmation>,
    digits: Option<String>,
    reports_digits: bool,
    /// The document that runs after the confirmation. `None` on a B-leg.
    document: Option<Arc<Document>>,
    phase: Phase,
}

enum Phase {
    /// The A-leg has been informed of the answer. It has not yet reported that this leg was the
    /// first.
    WaitingForProceed,
    /// The document of the confirmation sound is being fetched.
    Fetching(FetchId),
    /// The confirmation sound is available and waits for the media path.
    SoundPending(Vec<SoundItem>),
    PlayingSound(PlayId),
    /// The sound has been played. The leg waits for the confirmation key.
    WaitingForKey,
    /// The digits to be sent wait for the media path.
    DigitsPending(String),
    SendingDigits(PlayId),
    /// The call is confirmed and waits only for the media path.
    Confirmed,
    /// The A-leg has been informed that this leg is ready.
    Ready,
    Joined,
}

impl CalledParty {
    /// Starts on a B-leg that has just been answered.
    pub(super) fn begin(ctx: &mut CallContext) -> Self {
        let outbound = ctx.setup.outbound.clone().unwrap_or_default();
        let b_leg = outbound.b_leg;
        ctx.report_to_a_leg(BLegEvent::Answered);
        Self {
            confirm: b_leg.as_ref().and_then(|b_leg| b_leg.confirm.clone()),
            digits: outbound.send_digits.clone(),
            reports_digits: b_leg.is_some_and(|b_leg| b_leg.report_digits),
            document: None,
            phase: Phase::WaitingForProceed,
        }
    }

    /// Starts on a call that has just been answered and needs a confirmation before it runs a
    /// document.
    pub(super) fn confirming(
        ctx: &mut CallContext,
        readiness: Readiness,
        confirm: Confirmation,
        document: Arc<Document>,
    ) -> Self {
        let digits = ctx.setup.outbound.as_ref().and_then(|outbound| outbound.send_digits.clone());
        let mut called_party = Self {
            confirm: Some(confirm),
            digits,
            reports_digits: false,
            document: Some(document),
            phase: Phase::WaitingForProceed,
        };
        called_party.handle_command(ctx, readiness, &BLegCommand::Proceed);
        called_party
    }

    /// Handles a command of the A-leg.
    fn handle_command(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        command: &BLegCommand,
    ) {
        match (command, &self.phase) {
            (BLegCommand::Proceed, Phase::WaitingForProceed) => {
                match self.confirm.as_ref().map(|confirm| (&confirm.sound, confirm.method)) {
                    Some((Some(url), method)) => {
                        let target = Target { url: url.clone(), method };
                        self.phase = Phase::Fetching(sounds::fetch_sounds_at(
                            ctx,
                            target,
                            Event::DialConfirm,
                        ));
                    }
                    Some((None, _)) => self.await_key(ctx, readiness),
                    None => self.send_digits(ctx, readiness),
                }
            }
            (BLegCommand::Join, Phase::Ready) => {
                ctx.media(MediaCommand::Join);
                self.phase = Phase::Joined;
            }
            // A repeated or late command.
            (
                BLegCommand::Proceed
                | BLegCommand::Join
                | BLegCommand::HangUp { .. }
                | BLegCommand::Forward { .. },
                _,
            ) => {}
        }
    }

    /// Continues the step that waits for the media path, if the path is up.
    fn resume(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        if readiness != Readiness::Open {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Confirmed) {
            Phase::SoundPending(items) => {
                let timeout_ms = self.confirm.as_ref().map_or(0, |confirm| confirm.timeout_ms);
                let is_endless = items.iter().any(|item| item.repeat == Repeat::Endless);
                let max_ms = if is_endless { timeout_ms } else { timeout_ms.max(SOUND_MAX_MS) };
                ctx.set_timer(DocumentTimer::Confirm, max_ms);
                self.phase = Phase::PlayingSound(ctx.play(items));
            }
            Phase::DigitsPending(digits) => {
                let play = ctx.next_play();
                ctx.media(MediaCommand::SendDigits { play, digits });
                self.phase = Phase::SendingDigits(play);
            }
            Phase::Confirmed => {
                self.phase = Phase::Ready;
                ctx.report_to_a_leg(BLegEvent::Ready);
            }
            other => self.phase = other,
        }
    }

    /// Handles the end of the sound fetch. If it failed, there is no confirmation sound
    /// (docs/reference/callbacks.md#failures).
    fn sound_fetched(
        &mut self,
        ctx: &mut CallContext,
        readiness: Readiness,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) {
        if !matches!(self.phase, Phase::Fetching(open) if open == fetch) {
            return;
        }
        ctx.timers.clear(DocumentTimer::Fetch);
        let items = sounds::sounds_fetched(ctx, self.sound_name(), result);
        if items.is_empty() && self.document.is_some() {
            // The key is required even without a sound.
            return self.await_key(ctx, readiness);
        }
        if items.is_empty() {
            self.confirm = None;
            return self.send_digits(ctx, readiness);
        }
        self.phase = Phase::SoundPending(items);
        self.resume(ctx, readiness);
    }

    /// Waits for the confirmation key, if one is set.
    fn await_key(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        match self.confirm.as_ref().filter(|confirm| confirm.key.is_some()) {
            Some(confirm) => {
                ctx.set_timer(DocumentTimer::Confirm, confirm.timeout_ms);
                self.phase = Phase::WaitingForKey;
            }
            None => self.send_digits(ctx, readiness),
        }
    }

    /// Returns the attribute or parameter that named the sound.
    fn sound_name(&self) -> &'static str {
        if self.document.is_some() { "confirm_key_sound_url" } else { "confirmSound" }
    }

    fn send_digits(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        ctx.timers.clear(DocumentTimer::Confirm);
        self.phase = match self.digits.take() {
            Some(digits) => Phase::DigitsPending(digits),
            None => Phase::Confirmed,
        };
        self.resume(ctx, readiness);
    }

    /// Runs the document once the call is confirmed.
    fn progress(&mut self) -> Progress {
        let document = match self.phase {
            Phase::Ready => self.document.take(),
            Phase::WaitingForProceed
            | Phase::Fetching(_)
            | Phase::SoundPending(_)
            | Phase::PlayingSound(_)
            | Phase::WaitingForKey
            | Phase::DigitsPending(_)
            | Phase::SendingDigits(_)
            | Phase::Confirmed
            | Phase::Joined => None,
        };
        document.map_or(Progress::Pending, Progress::Run)
    }
}

impl Activity for CalledParty {
    fn fetched(
        &mut self,
        env: &mut Env<'_>,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) -> Progress {
        self.sound_fetched(env.ctx, env.readiness, fetch, result);
        self.progress()
    }

    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        if matches!(self.phase, Phase::PlayingSound(playing) if playing == play) {
            self.await_key(env.ctx, env.readiness);
        }
        self.progress()
    }

    fn play_failed(&mut self, env: &mut Env<'_>, play: PlayId, item: u16, reason: &str) {
        if matches!(self.phase, Phase::PlayingSound(playing) if playing == play) {
            let sound = self.sound_name();
            env.ctx.remark(format!(
                "item {} of {sound} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        let is_confirm_key =
            self.confirm.as_ref().and_then(|confirm| confirm.key) == Some(key.digit);
        match self.phase {
            Phase::PlayingSound(play) if is_confirm_key => {
                env.ctx.media(MediaCommand::Stop { play });
                self.send_digits(env.ctx, env.readiness);
            }
            Phase::WaitingForKey if is_confirm_key => {
                self.send_digits(env.ctx, env.readiness);
            }
            Phase::Joined if self.reports_digits => {
                env.ctx.report_to_a_leg(BLegEvent::Digit { digit: key.digit })
            }
            Phase::WaitingForProceed
            | Phase::Fetching(_)
            | Phase::SoundPending(_)
            | Phase::PlayingSound(_)
            | Phase::WaitingForKey
            | Phase::DigitsPending(_)
            | Phase::SendingDigits(_)
            | Phase::Confirmed
            | Phase::Ready
            | Phase::Joined => {}
        }
        self.progress()
    }

    fn digits_sent(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        if matches!(self.phase, Phase::SendingDigits(sending) if sending == play) {
            self.phase = Phase::Confirmed;
            self.resume(env.ctx, env.readiness);
        }
        self.progress()
    }

    fn leg_command(&mut self, env: &mut Env<'_>, command: &BLegCommand) -> Progress {
        self.handle_command(env.ctx, env.readiness, command);
        Progress::Pending
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        match (timer, &self.phase) {
            (DocumentTimer::Fetch, Phase::Fetching(fetch)) => {
                let fetch = *fetch;
                env.ctx.emit(Output::CancelFetch { fetch });
                self.fetched(env, fetch, Err(FetchFailure::Timeout))
            }
            (DocumentTimer::Fetch, _) => self.progress(),
            (DocumentTimer::Confirm, &Phase::PlayingSound(play))
                if self.confirm.as_ref().is_none_or(|confirm| confirm.key.is_none()) =>
            {
                env.ctx.media(MediaCommand::Stop { play });
                self.send_digits(env.ctx, env.readiness);
                self.progress()
            }
            (DocumentTimer::Confirm, _) => {
                let key = if self.document.is_some() { "confirm_key" } else { "confirmKey" };
                env.ctx.remark(format!("{key} was not pressed in time: the leg is hung up"));
                Progress::HangUp(HangupCause::ConfirmFailed)
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn readiness_changed(&mut self, env: &mut Env<'_>) -> Progress {
        self.resume(env.ctx, env.readiness);
        self.progress()
    }

    /// Ends the confirmation. On `Replaced`, the leg gets another document and leaves the `Dial`.
    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        let ctx = &mut *env.ctx;
        ctx.timers.clear(DocumentTimer::Confirm);
        if self.document.is_some() {
            // The phone was answered, but the confirmation was not completed.
            add_participant::report_failed(
                ctx,
                (reason == StopReason::CallEnds).then_some(COMPLETED),
            );
        }
        match self.phase {
            Phase::Fetching(fetch) => ctx.cancel_fetch(fetch),
            Phase::PlayingSound(play) | Phase::SendingDigits(play) => {
                ctx.media(MediaCommand::Stop { play })
            }
            Phase::Joined => ctx.media(MediaCommand::Unjoin),
            Phase::WaitingForProceed
            | Phase::SoundPending(_)
            | Phase::WaitingForKey
            | Phase::DigitsPending(_)
            | Phase::Confirmed
            | Phase::Ready => {}
        }
        match reason {
            StopReason::Replaced => {
                ctx.report_to_a_leg(BLegEvent::Ended { cause: HangupCause::ApiHangup })
            }
            StopReason::CallEnds => {}
        }
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        let waits = match self.phase {
            Phase::WaitingForProceed => "a_leg_command",
            Phase::Fetching(_) => "confirm_sound",
            Phase::SoundPending(_) | Phase::DigitsPending(_) | Phase::Confirmed => "media_path",
            Phase::PlayingSound(_) | Phase::WaitingForKey => "confirm_key",
            Phase::SendingDigits(_) => "tones",
            Phase::Ready => "a_leg_to_join",
            Phase::Joined => "end_of_connection",
        };
        snapshot.add("waits_for", [word(waits)]);
    }
}
