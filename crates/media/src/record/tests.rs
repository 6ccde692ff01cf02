//! Recordings as files: what was heard is in them, at its time, whatever ended them.

use std::collections::VecDeque;
use std::sync::mpsc;

use super::*;

const FRAME: usize = RATE.frame();

/// A source that gives a script of steps at once: how loud the left side is in each.
struct Script {
    steps: VecDeque<i16>,
    left: Vec<i16>,
    right: Vec<i16>,
    /// It ends with its script.
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

    fn is_over(&self) -> bool {
        self.ends && self.steps.is_empty()
    }
}

fn order(format: Format, stereo: bool) -> Order {
    Order { id: Uuid::new_v4(), format, stereo, max: Duration::from_secs(60), silence: None }
}

/// Records a script to its end, and gives what became of it and the file's bytes.
fn recorded(
    order: Order,
    source: Box<Script>,
    stop: Option<RecordingEndReason>,
) -> (Recorded, Option<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path(), 1).unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    let tape = recorder
        .begin(order, source, Box::new(move |recorded| tell.send(recorded).unwrap()))
        .unwrap();
    if let Some(end) = stop {
        tape.stop(end);
    }
    let ended = told.recv_timeout(Duration::from_secs(20)).unwrap();
    let path = folder.path().join(name(order.id, order.format));
    assert!(
        left_behind(folder.path()).unwrap().is_empty(),
        "no file of a recording that is over is in the making"
    );
    (ended, std::fs::read(path).ok())
}

fn samples(wav: &[u8]) -> Vec<i16> {
    let mut reader = hound::WavReader::new(wav).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.spec().bits_per_sample), (16_000, 16));
    reader.samples::<i16>().map(Result::unwrap).collect()
}

#[test]
fn a_wav_has_both_sides_apart_or_together() {
    let (ended, wav) = recorded(order(Format::Wav, true), Script::new([3_000; 10], true), None);
    assert_eq!(ended, Recorded { end: RecordingEndReason::HungUp, duration_ms: 200, failure: None });
    let pcm = samples(&wav.unwrap());
    assert_eq!(pcm.len(), 10 * FRAME * 2);
    assert_eq!(pcm.get(..4), Some(&[3_000, 1_000, 3_000, 1_000][..]));
    let (_, wav) = recorded(order(Format::Wav, false), Script::new([3_000; 10], true), None);
    let pcm = samples(&wav.unwrap());
    assert_eq!((pcm.len(), pcm.first()), (10 * FRAME, Some(&4_000)));
    // Two that shout at once don't wrap around.
    let (_, wav) = recorded(order(Format::Wav, false), Script::new([i16::MAX; 2], true), None);
    assert_eq!(samples(&wav.unwrap()).first(), Some(&i16::MAX));
}

#[test]
fn it_ends_at_its_length_after_silence_or_when_it_is_told() {
    let long = Order { max: Duration::from_secs(1), ..order(Format::Wav, true) };
    let (ended, wav) = recorded(long, Script::new([3_000; 500], false), None);
    assert_eq!((ended.end, ended.duration_ms), (RecordingEndReason::MaxLength, 1_000));
    assert_eq!(samples(&wav.unwrap()).len(), 2 * 16_000);
    // From the beginning on, where nobody says anything.
    let quiet = Order { silence: Some(Duration::from_secs(2)), ..order(Format::Wav, true) };
    let (ended, _) = recorded(quiet, Script::new([0; 500], false), None);
    assert_eq!((ended.end, ended.duration_ms), (RecordingEndReason::Silence, 2_000));
    let spoken = [3_000; 50].into_iter().chain([0; 500]);
    let (ended, _) = recorded(quiet, Script::new(spoken, false), None);
    assert_eq!((ended.end, ended.duration_ms), (RecordingEndReason::Silence, 3_000));
    let (ended, _) = recorded(
        order(Format::Wav, true),
        Script::new([3_000; 5], false),
        Some(RecordingEndReason::FinishedOnKey),
    );
    assert_eq!((ended.end, ended.duration_ms), (RecordingEndReason::FinishedOnKey, 100));
}

#[test]
fn a_recorder_that_stops_completes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path(), 2).unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    let order = order(Format::Wav, false);
    let told_by = Box::new(move |recorded| tell.send(recorded).unwrap());
    let _tape = recorder.begin(order, Script::new([3_000; 20], false), told_by).unwrap();
    recorder.stop();
    assert_eq!(told.recv().unwrap().end, RecordingEndReason::HungUp);
    assert!(recorder.is_empty());
    assert!(folder.path().join(name(order.id, Format::Wav)).exists());
    assert!(recorder.begin(order, Script::new([], true), Box::new(|_| {})).is_err());
}

#[test]
fn a_folder_that_takes_nothing_is_told_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&folder.path().join("recordings"), 1).unwrap();
    std::fs::remove_dir(folder.path().join("recordings")).unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    let told_by = Box::new(move |recorded| tell.send(recorded).unwrap());
    let _tape =
        recorder.begin(order(Format::Wav, true), Script::new([3_000; 5], false), told_by).unwrap();
    let ended = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((ended.end, ended.duration_ms), (RecordingEndReason::Failed, 0));
    assert!(ended.failure.is_some_and(|why| why.contains("could not be written")));
}

/// Beats until the recording of this script is over, on a disk that has room for so many bytes more.
fn on_a_disk_with(room: usize, order: Order, steps: usize) -> (Recorded, Vec<(String, u64)>) {
    let folder = tempfile::tempdir().unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    let mut job = Job::of(Begin {
        order,
        folder: folder.path().to_owned(),
        source: Script::new(vec![3_000; steps], true),
        stop: Arc::new(AtomicU8::new(GO_ON)),
        told: Box::new(move |recorded| tell.send(recorded).unwrap()),
    });
    file::ROOM.set(room);
    while job.told.is_some() {
        job.beat();
    }
    file::ROOM.set(usize::MAX);
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    });
    (told.try_recv().unwrap(), files.collect())
}

#[test]
fn a_full_disk_ends_a_recording_with_what_is_on_it_and_leaves_nothing_in_the_making() {
    for stereo in [false, true] {
        let second = if stereo { 64_000 } else { 32_000 };
        let sample = second / 16_000;
        // Full before its header, in it, behind it, in its first second, in the third, and only when it is completed.
        for (room, steps) in [
            (0, 500),
            (20, 500),
            (44, 500),
            (10_001, 500),
            (44 + second * 2 + 777, 500),
            (44 + second + 101, 60),
        ] {
            let order = order(Format::Wav, stereo);
            let (ended, files) = on_a_disk_with(room, order, steps);
            let kept = room.saturating_sub(44) / sample * sample;
            let steps = u64::try_from(kept * 50 / second).unwrap();
            assert_eq!(
                (ended.end, ended.duration_ms),
                (RecordingEndReason::Failed, steps * 20),
                "room for {room}"
            );
            assert!(
                ended.failure.is_some_and(|why| why.contains("the disk is full")),
                "room for {room}"
            );
            let file = (kept > 0)
                .then(|| (name(order.id, Format::Wav), 44 + u64::try_from(kept).unwrap()));
            assert_eq!(files, file.into_iter().collect::<Vec<_>>(), "room for {room}");
        }
    }
}

#[cfg(feature = "mp3")]
#[test]
fn a_full_disk_leaves_an_mp3_of_whole_writes() {
    let mp3 = order(Format::Mp3, false);
    let (ended, files) = on_a_disk_with(10_000, mp3, 500);
    assert_eq!(ended.end, RecordingEndReason::Failed);
    assert!((1_000..3_000).contains(&ended.duration_ms), "{ended:?}");
    let [(file, bytes)] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(*file, name(mp3.id, Format::Mp3));
    assert!((3_500..10_000).contains(bytes), "{bytes}");
    let (ended, files) = on_a_disk_with(100, order(Format::Mp3, false), 60);
    assert_eq!((ended.end, ended.duration_ms, files), (RecordingEndReason::Failed, 0, vec![]));
}

#[test]
fn what_a_killed_process_left_is_made_whole() {
    let folder = tempfile::tempdir().unwrap();
    let id = Uuid::new_v4();
    let mut file = SoundFile::create(folder.path(), id, Format::Wav, true).unwrap();
    for _ in 0..120 {
        file.push(&[5; FRAME], &[7; FRAME]).unwrap();
        file.keep().unwrap();
    }
    let part = folder.path().join(format!("{}.part", name(id, Format::Wav)));
    // Playable as it is, to the last second.
    assert_eq!(samples(&std::fs::read(&part).unwrap()).len(), 100 * FRAME * 2);
    drop(file);
    // Cut in the middle of a sample, with a header that knows nothing of the last write.
    let bytes = std::fs::read(&part).unwrap();
    std::fs::write(&part, [&bytes[..], &[9; 643]].concat()).unwrap();
    assert_eq!(left_behind(folder.path()).unwrap(), [(id, Format::Wav)]);
    let left = repair(folder.path(), id, Format::Wav, true).unwrap();
    assert_eq!(left, Left::Repaired { duration_ms: 2_010 });
    let whole = std::fs::read(folder.path().join(name(id, Format::Wav))).unwrap();
    assert_eq!(samples(&whole).len(), (32_000 + 160) * 2);
    assert_eq!(
        repair(folder.path(), id, Format::Wav, true).unwrap(),
        left,
        "once more changes nothing"
    );
    remove(folder.path(), id, Format::Wav).unwrap();
    assert_eq!(repair(folder.path(), id, Format::Wav, true).unwrap(), Left::Nothing);
}

#[cfg(feature = "mp3")]
#[test]
fn an_mp3_has_the_sound_and_its_length_and_can_be_repaired() {
    for stereo in [false, true] {
        let (ended, mp3) =
            recorded(order(Format::Mp3, stereo), Script::new([3_000; 100], true), None);
        assert_eq!((ended.end, ended.duration_ms), (RecordingEndReason::HungUp, 2_000));
        let mp3 = mp3.unwrap();
        let rate = if stereo { 64_000 } else { 32_000 };
        let expected = rate / 8 * 2;
        assert!((expected..expected * 11 / 10).contains(&mp3.len()), "{} bytes", mp3.len());
        // Half a frame at its end, as a kill leaves it.
        let folder = tempfile::tempdir().unwrap();
        let id = Uuid::new_v4();
        let part = folder.path().join(format!("{}.part", name(id, Format::Mp3)));
        std::fs::write(part, &mp3[..mp3.len() / 2 + 7]).unwrap();
        let Left::Repaired { duration_ms } =
            repair(folder.path(), id, Format::Mp3, stereo).unwrap()
        else {
            panic!("there was sound in it")
        };
        assert!((950..=1_080).contains(&duration_ms), "{duration_ms} ms");
        let whole = std::fs::read(folder.path().join(name(id, Format::Mp3))).unwrap();
        assert_eq!(whole.len() % (rate / 8 * 36 / 1_000), 0, "whole frames");
    }
}

#[test]
fn a_complete_file_is_read_back_channel_by_channel() {
    for format in [Format::Wav, Format::of(true)] {
        for stereo in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let id = Uuid::new_v4();
            let mut file = SoundFile::create(folder.path(), id, format, stereo).unwrap();
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
            // How often the sign changes tells the pitch; an encoder's faint noise around the tone has none.
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
            let few = read(folder.path(), id, format, &mut |_, _| {
                count += 1;
                count < 3
            });
            assert_eq!((few.is_ok(), count), (true, 3), "it ends when no more is wanted");
        }
    }
    assert!(
        read(std::path::Path::new("/nowhere"), Uuid::nil(), Format::Wav, &mut |_, _| true).is_err()
    );
}

#[test]
fn a_program_without_mp3_says_that_it_writes_wav() {
    assert_eq!(Format::instead(true).is_some(), cfg!(not(feature = "mp3")));
    assert_eq!((Format::instead(false), Format::of(false)), (None, Format::Wav));
    assert_eq!(Format::of(true) == Format::Mp3, cfg!(feature = "mp3"));
}
