//! Speaks a reply while it is still being generated: sentences in, one prompt out. The next
//! sentence is synthesized while the current one is written. The times of the sentences are
//! recorded, so that an interruption shows what the caller heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Progress;
use super::playback::FRAME;
use machine::Sound;
use media::prompt::{FrameState, Prompt, Writer};
use model::AuthId;
use speech::library::Library;
use store::AgentSpec;
use xml::ast::{Speech, SpeechNode, Voice};

/// The polling interval for synthesized frames.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum total time that the synthesis of a sentence may stall before it is skipped.
const SYNTHESIS_TIMEOUT: Duration = Duration::from_secs(15);

/// The sound of a sentence in the agent's voice.
fn sound(spec: &AgentSpec, sentence: &str) -> Sound {
    let voice = match spec.voice.as_deref() {
        Some("MAN") => Voice::Man,
        Some(polly) if polly.starts_with("Polly.") => {
            Voice::Polly(polly.trim_start_matches("Polly.").to_owned())
        }
        _ => Voice::Woman,
    };
    let language = (!matches!(voice, Voice::Polly(_))).then(|| spec.language.clone());
    Sound::Speak { speech: Speech(vec![SpeechNode::Text(sentence.to_owned())]), voice, language }
}

/// Writes the sentences to the prompt until the channel is closed. `account` is the main account of
/// the call.
pub(super) async fn speak(
    library: Library,
    account: AuthId,
    spec: Arc<AgentSpec>,
    mut sentences: mpsc::Receiver<String>,
    mut writer: Writer,
    progress: Arc<Progress>,
) {
    let made = |sentence: String| {
        let prompt = library.prompt_for(&account, &sound(&spec, &sentence));
        (sentence, prompt)
    };
    let mut next = sentences.recv().await.map(made);
    let mut frames = 0;
    while let Some((sentence, prompt)) = next {
        // The library synthesizes it in the background.
        let after = sentences.try_recv().ok().map(made);
        progress.state().playback.begin(FRAME * frames, sentence);
        frames += copy_frames(&prompt, &mut writer).await;
        progress.state().playback.end(FRAME * frames);
        next = match after {
            Some(after) => Some(after),
            None => sentences.recv().await.map(made),
        };
    }
    writer.finish();
}

/// Copies a prompt's frames to the writer, and returns their number.
async fn copy_frames(prompt: &Arc<Prompt>, writer: &mut Writer) -> u32 {
    let mut frames = 0;
    let mut cursor = prompt.cursor();
    let mut waited = Duration::ZERO;
    loop {
        match cursor.next() {
            FrameState::Ready(frame) => {
                if frames == 0 {
                    prompt.voices().into_iter().for_each(|voice| writer.prompt().add_voice(voice));
                }
                writer.push(frame);
                frames += 1;
            }
            FrameState::End => return frames,
            FrameState::Failed => {
                tracing::warn!(
                    why = prompt.failure(),
                    "speech synthesis of an agent's sentence failed"
                );
                return frames;
            }
            FrameState::Pending if waited >= SYNTHESIS_TIMEOUT => return frames,
            FrameState::Pending => {
                tokio::time::sleep(POLL_INTERVAL).await;
                waited += POLL_INTERVAL;
            }
        }
    }
}
