//! The embedded voice in its real helper process, killed while it speaks.
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use offhook::call::machine::Sound;
use offhook::clock::Clock;
use offhook::egress::FileAnswer;
use offhook::media::prompt::{Prompt, Slot};
use offhook::speech::config::SpeechConfig;
use offhook::speech::library::{FileFetch, Library};
use offhook::speech::provider::BoxFuture;
use offhook::xml::ast::{DocUrl, Speech, SpeechNode, Voice};

struct NoFiles;

impl FileFetch for NoFiles {
    fn fetch<'a>(&'a self, _: &'a DocUrl, _: usize, _: Option<&'a str>) -> BoxFuture<'a, Result<FileAnswer, String>> {
        Box::pin(std::future::ready(Err("no files here".to_owned())))
    }
}

fn speak(text: &str) -> Sound {
    let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
    Sound::Speak { speech, voice: Voice::Woman, language: None }
}

/// Frames until it is complete, failed or `enough` are there.
async fn frames(prompt: &Arc<Prompt>, enough: usize) -> usize {
    let mut cursor = prompt.cursor();
    let count = async {
        let mut count = 0;
        while count < enough {
            match cursor.next() {
                Slot::Ready(_) => count += 1,
                Slot::Pending => tokio::task::yield_now().await,
                Slot::End | Slot::Failed => break,
            }
        }
        count
    };
    tokio::time::timeout(Duration::from_secs(60), count).await.expect("a prompt goes on")
}

/// Process numbers of this process's speech helpers.
fn helpers() -> Vec<u32> {
    let parent = format!(" {} ", std::process::id());
    let is_ours = |pid: &u32| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // `pid (name) state ppid …`
        let child =
            read("stat").rsplit(')').next().is_some_and(|rest| rest.get(2..).unwrap_or_default().starts_with(&parent));
        child && read("cmdline").contains("speech-helper")
    };
    let entries =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    entries.filter(is_ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_is_killed_ends_one_prompt_and_not_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let config = SpeechConfig {
        data_dir: dir.path().to_owned(),
        helper: Some(env!("CARGO_BIN_EXE_offhook").into()),
        ..SpeechConfig::default()
    };
    let runtime = tokio::runtime::Handle::current();
    let library = Library::new(config, Clock::real(), runtime, Arc::new(NoFiles)).unwrap();

    let short = library.prompt(&speak("Welcome. Press one."));
    let spoken = frames(&short, usize::MAX).await;
    assert!((50..250).contains(&spoken), "{spoken} frames");
    assert_eq!(short.failure(), None);

    let long = library.prompt(&speak(&"The quick brown fox jumps over the lazy dog. ".repeat(66)));
    assert_eq!(frames(&long, 10).await, 10, "{:?}", long.failure());
    let [helper] = helpers()[..] else { panic!("one helper: {:?}", helpers()) };
    let killed = std::process::Command::new("sh").args(["-c", &format!("kill -9 {helper}")]).status().unwrap();
    assert!(killed.success());
    let heard = frames(&long, usize::MAX).await;
    assert!(heard < 5_000, "{heard} frames");
    assert!(long.failure().unwrap().starts_with("hear from the speech helper"), "{:?}", long.failure());

    let next = library.prompt(&speak("Hello again."));
    assert!(frames(&next, usize::MAX).await > 20);
    assert_eq!(next.failure(), None);
    let restarted = helpers();
    assert!(restarted.len() == 1 && restarted[0] != helper, "{restarted:?}");
}
