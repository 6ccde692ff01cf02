//! Recordings as files: they contain the audio at its time, whatever ended them.

use std::collections::VecDeque;
use std::sync::mpsc;

use super::*;

const FRAME: usize = RATE.frame();

/// A source that returns a script of steps: the level of the left side in each.
struct Script {
    steps: VecDeque<i16>,
    left: Vec<i16>,
    right: Vec<i16>,
    /// Whether the source ends with its script.
    ends: bool,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = i16>, ends: bool) -> Box<Self> {
        Box::new(Self {
            steps: steps.into_iter().collect(),
            left: vec![],
            right: vec![1_000; FRAME],
            ends,
        })
    }
}

impl Source for Script {
    fn next(&mut self) -> Option<(&[i16], &[i16])> {
        let level = self.steps.pop_front()?;
        self.left = (0..FRAME).map(|i| if i % 40 < 20 { level } else { -level }).collect();
        Some((&self.left, &self.right))
    }

    fn skip(&mut self) {
        self.steps.clear();
    }

    fn is_over(&self) -> bool {
        self.ends && self.steps.is_empty()
    }
}

/// A disk without a limit.
fn unlimited() -> SpaceCheck {
    Box::new(|_| Ok(()))
}

fn options(format: Format, stereo: bool) -> RecordingOptions {
    RecordingOptions {
        id: Uuid::new_v4(),
        format,
        stereo,
        max: Duration::from_secs(60),
        silence: None,
    }
}

/// Records a script to its end. Returns the result and the file's bytes.
fn record(
    options: RecordingOptions,
    source: Box<Script>,
    stop: Option<RecordingEndReason>,
) -> (RecordingResult, Option<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path(), 1).unwrap();
    let (tell, results) = mpsc::sync_channel(1);
    let handle = recorder
        .start_recording(
            options,
            None,
            source,
            unlimited(),
            Box::new(move |result| tell.send(result).unwrap()),
        )
        .unwrap();
    if let Some(end) = stop {
        handle.stop(end);
    }
    let result = results.recv_timeout(Duration::from_secs(20)).unwrap();
    let path = folder.path().join(file_name(options.id, options.format));
    assert!(list_unfinished(folder.path()).unwrap().is_empty(), "no unfinished file is left");
    (result, std::fs::read(path).ok())
}

fn samples(wav: &[u8]) -> Vec<i16> {
    let mut reader = hound::WavReader::new(wav).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.spec().bits_per_sample), (16_000, 16));
    reader.samples::<i16>().map(Result::unwrap).collect()
}

#[test]
fn writes_wav_with_separate_or_mixed_channels() {
    let (result, wav) = record(options(Format::Wav, true), Script::new([3_000; 10], true), None);
    assert_eq!(
        result,
        RecordingResult { end: RecordingEndReason::HungUp, duration_ms: 200, failure: None }
    );
    let pcm = samples(&wav.unwrap());
    assert_eq!(pcm.len(), 10 * FRAME * 2);
    assert_eq!(pcm.get(..4), Some(&[3_000, 1_000, 3_000, 1_000][..]));
    let (_, wav) = record(options(Format::Wav, false), Script::new([3_000; 10], true), None);
    let pcm = samples(&wav.unwrap());
    assert_eq!((pcm.len(), pcm.first()), (10 * FRAME, Some(&4_000)));
    // Two loud sides saturate and do not wrap around.
    let (_, wav) = record(options(Format::Wav, false), Script::new([i16::MAX; 2], true), None);
    assert_eq!(samples(&wav.unwrap()).first(), Some(&i16::MAX));
}

#[test]
fn ends_at_its_maximum_after_silence_or_when_stopped() {
    let long = RecordingOptions { max: Duration::from_secs(1), ..options(Format::Wav, true) };
    let (result, wav) = record(long, Script::new([3_000; 500], false), None);
    assert_eq!((result.end, result.duration_ms), (RecordingEndReason::MaxLength, 1_000));
    assert_eq!(samples(&wav.unwrap()).len(), 2 * 16_000);
    // Counted from the beginning without any speech.
    let quiet =
        RecordingOptions { silence: Some(Duration::from_secs(2)), ..options(Format::Wav, true) };
    let (result, _) = record(quiet, Script::new([0; 500], false), None);
    assert_eq!((result.end, result.duration_ms), (RecordingEndReason::Silence, 2_000));
    let spoken = [3_000; 50].into_iter().chain([0; 500]);
    let (result, _) = record(quiet, Script::new(spoken, false), None);
    assert_eq!((result.end, result.duration_ms), (RecordingEndReason::Silence, 3_000));
    let (result, _) = record(
        options(Format::Wav, true),
        Script::new([3_000; 5], false),
        Some(RecordingEndReason::FinishedOnKey),
    );
    assert_eq!((result.end, result.duration_ms), (RecordingEndReason::FinishedOnKey, 100));
}

#[test]
fn a_stopped_recording_contains_its_backlog_up_to_a_limit() {
    let limit = u64::from(STEPS_PER_TURN * LAST_TURNS_MAX);
    for (backlog, kept) in [(1_500, 1_500), (limit + 100, limit)] {
        let script = Script::new((0..backlog).map(|_| 3_000), false);
        let long = RecordingOptions { max: Duration::from_secs(600), ..options(Format::Wav, true) };
        let (result, _) = record(long, script, Some(RecordingEndReason::FinishedOnKey));
        let expected = (RecordingEndReason::FinishedOnKey, kept * STEP_MS);
        assert_eq!((result.end, result.duration_ms), expected);
    }
}

#[test]
fn completes_its_files_when_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path(), 2).unwrap();
    let (tell, results) = mpsc::sync_channel(1);
    let options = options(Format::Wav, false);
    let on_finished = Box::new(move |result| tell.send(result).unwrap());
    let _handle = recorder
        .start_recording(options, None, Script::new([3_000; 20], false), unlimited(), on_finished)
        .unwrap();
    recorder.stop();
    assert_eq!(results.recv().unwrap().end, RecordingEndReason::HungUp);
    assert!(recorder.is_empty());
    assert!(folder.path().join(file_name(options.id, Format::Wav)).exists());
    assert!(
        recorder
            .start_recording(options, None, Script::new([], true), unlimited(), Box::new(|_| {}))
            .is_err()
    );
}

#[test]
fn reports_a_folder_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&folder.path().join("recordings"), 1).unwrap();
    std::fs::remove_dir(folder.path().join("recordings")).unwrap();
    std::fs::write(folder.path().join("recordings"), "no folder").unwrap();
    let (tell, results) = mpsc::sync_channel(1);
    let on_finished = Box::new(move |result| tell.send(result).unwrap());
    let _handle = recorder
        .start_recording(
            options(Format::Wav, true),
            None,
            Script::new([3_000; 5], false),
            unlimited(),
            on_finished,
        )
        .unwrap();
    let result = results.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((result.end, result.duration_ms), (RecordingEndReason::Failed, 0));
    assert!(result.failure.is_some_and(|why| why.contains("could not be written")));
}

/// Runs a recording to its end on a disk with `room` bytes left. Returns the result and the files.
fn record_with_disk_space(
    space: usize,
    options: RecordingOptions,
    steps: usize,
) -> (RecordingResult, Vec<(String, u64)>) {
    let folder = tempfile::tempdir().unwrap();
    let (tell, results) = mpsc::sync_channel(1);
    let mut job = RecordingJob::new(NewRecording {
        options,
        folder: folder.path().to_owned(),
        source: Script::new(vec![3_000; steps], true),
        state: None,
        control: Arc::default(),
        space: unlimited(),
        on_finished: Box::new(move |result| tell.send(result).unwrap()),
    });
    file::TEST_DISK_SPACE.set(space);
    while job.on_finished.is_some() {
        job.run();
    }
    file::TEST_DISK_SPACE.set(usize::MAX);
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    });
    (results.try_recv().unwrap(), files.collect())
}

#[test]
fn a_full_disk_ends_a_recording_with_a_complete_file() {
    for stereo in [false, true] {
        let second = if stereo { 64_000 } else { 32_000 };
        let sample = second / 16_000;
        // The disk is full before the header, inside it, after it, in the first second, in the
        // third, and at completion.
        for (space, steps) in [
            (0, 500),
            (20, 500),
            (44, 500),
            (10_001, 500),
            (44 + second * 2 + 777, 500),
            (44 + second + 101, 60),
        ] {
            let options = options(Format::Wav, stereo);
            let (result, files) = record_with_disk_space(space, options, steps);
            let kept = space.saturating_sub(44) / sample * sample;
            let steps = u64::try_from(kept * 50 / second).unwrap();
            assert_eq!(
                (result.end, result.duration_ms),
                (RecordingEndReason::Failed, steps * 20),
                "space for {space} bytes"
            );
            assert!(
                result.failure.is_some_and(|why| why.contains("the disk is full")),
                "space for {space} bytes"
            );
            let file = (kept > 0)
                .then(|| (file_name(options.id, Format::Wav), 44 + u64::try_from(kept).unwrap()));
            assert_eq!(files, file.into_iter().collect::<Vec<_>>(), "space for {space} bytes");
        }
    }
}

#[test]
fn r11_without_space_no_recording_begins_and_a_running_one_keeps_what_it_has() {
    for (limit, kept_ms) in [(0, 0), (100_000, 2_000)] {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(folder.path(), 1).unwrap();
        let (tell, results) = mpsc::sync_channel(1);
        let options = options(Format::Wav, true);
        let space = move |bytes| if bytes < limit { Ok(()) } else { Err("no space") };
        let on_finished = Box::new(move |result| tell.send(result).unwrap());
        let source = Script::new([3_000; 500], true);
        let _handle =
            recorder.start_recording(options, None, source, Box::new(space), on_finished).unwrap();
        let result = results.recv_timeout(Duration::from_secs(20)).unwrap();
        let failure = Some("no space".to_owned());
        let expected =
            RecordingResult { end: RecordingEndReason::Failed, duration_ms: kept_ms, failure };
        assert_eq!(result, expected);
        let file = std::fs::read(folder.path().join(file_name(options.id, Format::Wav)));
        assert_eq!(file.map_or(0, |wav| samples(&wav).len()) as u64, kept_ms * 32);
        assert!(list_unfinished(folder.path()).unwrap().is_empty());
    }
}

#[cfg(feature = "mp3")]
#[test]
fn a_full_disk_leaves_a_complete_mp3() {
    let mp3 = options(Format::Mp3, false);
    let (result, files) = record_with_disk_space(10_000, mp3, 500);
    assert_eq!(result.end, RecordingEndReason::Failed);
    assert!((1_000..3_000).contains(&result.duration_ms), "{result:?}");
    let [(file, bytes)] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(*file, file_name(mp3.id, Format::Mp3));
    assert!((3_500..10_000).contains(bytes), "{bytes}");
    let (result, files) = record_with_disk_space(100, options(Format::Mp3, false), 60);
    assert_eq!((result.end, result.duration_ms, files), (RecordingEndReason::Failed, 0, vec![]));
}

#[test]
fn repairs_the_file_of_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let id = Uuid::new_v4();
    let mut file = AudioFile::create(folder.path(), id, Format::Wav, true).unwrap();
    for _ in 0..120 {
        file.push(&[5; FRAME], &[7; FRAME]).unwrap();
        file.write_if_due().unwrap();
    }
    let part = folder.path().join(format!("{}.part", file_name(id, Format::Wav)));
    // Playable as it is, up to the last full second.
    assert_eq!(samples(&std::fs::read(&part).unwrap()).len(), 100 * FRAME * 2);
    drop(file);
    // Cut in the middle of a sample, with a header from before the last write.
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, [&bytes[..], &[9; 643]].concat()).unwrap();
    assert_eq!(list_unfinished(folder.path()).unwrap(), [(id, Format::Wav)]);
    let left = repair(folder.path(), id, Format::Wav, true).unwrap();
    assert_eq!(left, RepairOutcome::Repaired { duration_ms: 2_010 });
    let whole = std::fs::read(folder.path().join(file_name(id, Format::Wav))).unwrap();
    assert_eq!(samples(&whole).len(), (32_000 + 160) * 2);
    assert_eq!(
        repair(folder.path(), id, Format::Wav, true).unwrap(),
        left,
        "a second repair changes nothing"
    );
    remove(folder.path(), id, Format::Wav).unwrap();
    assert_eq!(repair(folder.path(), id, Format::Wav, true).unwrap(), RepairOutcome::Nothing);
}

#[cfg(feature = "mp3")]
#[test]
fn writes_and_repairs_mp3() {
    for stereo in [false, true] {
        let (result, mp3) =
            record(options(Format::Mp3, stereo), Script::new([3_000; 100], true), None);
        assert_eq!((result.end, result.duration_ms), (RecordingEndReason::HungUp, 2_000));
        let mp3 = mp3.unwrap();
        let rate = if stereo { 64_000 } else { 32_000 };
        let expected = rate / 8 * 2;
        assert!((expected..expected * 11 / 10).contains(&mp3.len()), "{} bytes", mp3.len());
        // Half a frame at the end, as after a kill.
        let folder = tempfile::tempdir().unwrap();
        let id = Uuid::new_v4();
        let part = folder.path().join(format!("{}.part", file_name(id, Format::Mp3)));
        std::fs::write(part, &mp3[..mp3.len() / 2 + 7]).unwrap();
        let RepairOutcome::Repaired { duration_ms } =
            repair(folder.path(), id, Format::Mp3, stereo).unwrap()
        else {
            panic!("the file contained audio")
        };
        assert!((950..=1_080).contains(&duration_ms), "{duration_ms} ms");
        let whole = std::fs::read(folder.path().join(file_name(id, Format::Mp3))).unwrap();
        assert_eq!(whole.len() % (rate / 8 * 36 / 1_000), 0, "whole frames");
    }
}

#[test]
fn a_removed_folder_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let removed = folder.path().join("recordings");
    AudioFile::create(&removed, Uuid::new_v4(), Format::Wav, true).unwrap();
    assert_eq!(std::fs::read_dir(&removed).unwrap().count(), 1);
}

#[test]
fn reads_files_back_by_channel() {
    for format in [Format::Wav, Format::of(true)] {
        for stereo in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let id = Uuid::new_v4();
            let mut file = AudioFile::create(folder.path(), id, format, stereo).unwrap();
            let tone = |hz: f64| -> Vec<i16> {
                (0..16_000)
                    .map(|n| (f64::from(n) * hz * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0)
                    .map(|s| s as i16)
                    .collect()
            };
            let (left, right) = (tone(300.0), tone(900.0));
            for (left, right) in left.chunks(FRAME).zip(right.chunks(FRAME)) {
                file.push(left, right).unwrap();
            }
            file.finish().unwrap();
            // The rate of zero crossings gives the pitch; quiet samples are ignored, because the
            // encoder adds noise.
            let pitch = |pcm: &[i16]| {
                let loud: Vec<i16> =
                    pcm.iter().copied().filter(|sample| sample.unsigned_abs() > 500).collect();
                loud.windows(2).filter(|w| (w[0] < 0) != (w[1] < 0)).count() / 2
            };
            let (mut first, mut second) = (Vec::new(), Vec::new());
            read(folder.path(), id, format, &mut |left, right| {
                assert_eq!((left.len(), right.map(<[i16]>::len)), (FRAME, stereo.then_some(FRAME)));
                first.extend_from_slice(left);
                second.extend_from_slice(right.unwrap_or_default());
                true
            })
            .unwrap();
            assert!((15_000..20_000).contains(&first.len()), "{format:?} {}", first.len());
            if stereo {
                assert!((270..=310).contains(&pitch(&first)), "{format:?} {}", pitch(&first));
                assert!((810..=930).contains(&pitch(&second)), "{format:?} {}", pitch(&second));
            }
            let mut count = 0;
            let outcome = read(folder.path(), id, format, &mut |_, _| {
                count += 1;
                count < 3
            });
            assert_eq!((outcome.is_ok(), count), (true, 3), "stops when the sink returns false");
        }
    }
    assert!(
        read(std::path::Path::new("/nowhere"), Uuid::nil(), Format::Wav, &mut |_, _| true).is_err()
    );
}

#[test]
fn a_build_without_mp3_reports_the_substitution() {
    assert_eq!(Format::substitution_remark(true).is_some(), cfg!(not(feature = "mp3")));
    assert_eq!((Format::substitution_remark(false), Format::of(false)), (None, Format::Wav));
    assert_eq!(Format::of(true) == Format::Mp3, cfg!(feature = "mp3"));
}

/// Records a script in two processes: the first one detaches the recording, and something that
/// failed has written more since.
fn record_in_two(options: RecordingOptions, before: usize, after: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let old = Recorder::start(folder.path(), 1).unwrap();
    let (tell, states) = mpsc::sync_channel(1);
    let never = Box::new(|_| panic!("a detached recording has no outcome"));
    let source = Script::new(vec![3_000; before], false);
    let handle = old.start_recording(options, None, source, unlimited(), never).unwrap();
    handle.detach(move |state| tell.send(state).unwrap());
    let state = states.recv().unwrap();
    old.stop();
    let text = serde_json::to_string(&state).unwrap();
    let state: RecordingState = serde_json::from_str(&text).unwrap();
    let [(id, format)] = list_unfinished(folder.path()).unwrap()[..] else { panic!("one file") };
    let part = folder.path().join(file_name(id, format) + ".part");
    let mut file = std::fs::OpenOptions::new().append(true).open(part).unwrap();
    std::io::Write::write_all(&mut file, &[9; 5_000]).unwrap();

    let new = Recorder::start(folder.path(), 1).unwrap();
    let (tell, results) = mpsc::sync_channel(1);
    let source = Script::new(vec![3_000; after], true);
    let on_finished = Box::new(move |result| tell.send(result).unwrap());
    let _handle =
        new.start_recording(options, Some(state), source, unlimited(), on_finished).unwrap();
    let result = results.recv().unwrap();
    let duration_ms = u64::try_from(before + after).unwrap() * STEP_MS;
    assert_eq!((result.end, result.duration_ms), (RecordingEndReason::HungUp, duration_ms));
    std::fs::read(folder.path().join(file_name(options.id, options.format))).unwrap()
}

#[test]
fn goes_on_in_the_same_file_in_another_process() {
    let pcm = samples(&record_in_two(options(Format::Wav, true), 77, 30));
    assert_eq!(pcm.len(), 107 * FRAME * 2);
    assert!(pcm.iter().all(|sample| [1_000, 3_000, -3_000].contains(sample)));
}

#[cfg(feature = "mp3")]
#[test]
fn an_mp3_goes_on_in_another_process_without_a_gap() {
    // Not a multiple of a frame, which has 36 ms.
    let mp3 = record_in_two(options(Format::Mp3, true), 77, 30);
    let (_, whole) = record(options(Format::Mp3, true), Script::new([3_000; 107], true), None);
    assert_eq!(mp3.len(), whole.unwrap().len(), "no frame is missing or added");
}

#[test]
fn a_detached_recording_ends_where_it_would_have_ended() {
    let long = RecordingOptions { max: Duration::from_secs(1), ..options(Format::Wav, true) };
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path(), 1).unwrap();
    let (tell, results) = mpsc::sync_channel(1);
    let (detached, states) = mpsc::sync_channel::<RecordingState>(1);
    let on_finished = Box::new(move |result: RecordingResult| tell.send(result.end).unwrap());
    let source = Script::new([3_000; 60], false);
    let handle = recorder.start_recording(long, None, source, unlimited(), on_finished).unwrap();
    handle.detach(move |state| detached.send(state).unwrap());
    assert!(states.recv().is_err(), "it has reached its maximum");
    assert_eq!(results.recv(), Ok(RecordingEndReason::MaxLength));
    // Without its file, it fails.
    let gone = options(Format::Wav, true);
    let (tell, states) = mpsc::sync_channel(1);
    let source = Script::new([3_000; 10], false);
    let handle =
        recorder.start_recording(gone, None, source, unlimited(), Box::new(|_| {})).unwrap();
    handle.detach(move |state| tell.send(state).unwrap());
    let state = states.recv().unwrap();
    remove(folder.path(), gone.id, Format::Wav).unwrap();
    let (tell, results) = mpsc::sync_channel(1);
    let on_finished = Box::new(move |result| tell.send(result).unwrap());
    let source = Script::new([3_000; 10], true);
    let _handle =
        recorder.start_recording(gone, Some(state), source, unlimited(), on_finished).unwrap();
    let result = results.recv().unwrap();
    assert_eq!((result.end, result.duration_ms), (RecordingEndReason::Failed, 0));
}
