//! The neural voice for Hindi and Brazilian Portuguese: text to phonemes by rules, and phonemes to
//! sound by Kokoro-82M (<https://github.com/hexgrad/kokoro>, Apache-2.0). The network runs only in the
//! speech helper.
//!
//! The network speaks phonemes in IPA, and a voice is a table of styles, one for each length of a
//! text.

mod graph;
mod hindi;
mod portuguese;

use std::io;
use std::path::Path;

use rten::{Model, ModelOptions, NodeId, OpRegistry, ValueView, op_registry};

pub(crate) use graph::standard_operators;

use super::language::primary;

/// The file of the network in an installed model.
pub(crate) const NETWORK_FILE: &str = "kokoro.onnx";
/// The size in bytes of the file of a voice.
pub(crate) const VOICE_BYTES: usize = STYLES * STYLE_VALUES * 4;

/// Sample rate of the voice in Hz.
const RATE: f32 = 24_000.0;
/// Samples at the beginning that are muted. The inverse Fourier transform of the network does not cut
/// off its first half window: a click as loud as speech, which fades within 45 ms. Speech begins
/// after 150 ms.
const CLICK_SAMPLES: usize = 1_200;
/// Number of styles of a voice, and number of values of a style.
const STYLES: usize = 510;
const STYLE_VALUES: usize = 256;
/// Maximum number of phonemes that are spoken at once: about 15 s.
const PHONEMES_MAX: usize = 200;

/// A language of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Hindi,
    /// Brazilian Portuguese, which also speaks for other regions.
    Portuguese,
}

impl Language {
    const ALL: [Self; 2] = [Self::Hindi, Self::Portuguese];

    /// Returns the language that speaks a BCP 47 tag, or `None` if there is none.
    pub(crate) fn of(tag: &str) -> Option<Self> {
        match primary(tag).as_str() {
            "hi" => Some(Self::Hindi),
            "pt" => Some(Self::Portuguese),
            _ => None,
        }
    }

    /// Returns the languages that an installed model with these files speaks. A model that an earlier
    /// version installed has the voices for Hindi only.
    pub(crate) fn installed<'a>(files: impl Iterator<Item = &'a str> + Clone) -> Vec<Self> {
        let has = |voice: &VoiceName| files.clone().any(|file| file == voice.file());
        let is_installed = |language: &Self| {
            VoiceName::ALL.iter().filter(|voice| voice.language() == *language).all(has)
        };
        Self::ALL.into_iter().filter(is_installed).collect()
    }

    /// Returns the phonemes of a sentence, with spaces between words and with punctuation.
    pub(crate) fn phonemes(self, sentence: &str) -> String {
        match self {
            Self::Hindi => hindi::phonemes(sentence),
            Self::Portuguese => portuguese::phonemes(sentence),
        }
    }
}

/// A voice of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoiceName {
    HfAlpha,
    HfBeta,
    HmOmega,
    PfDora,
    PmAlex,
}

impl VoiceName {
    pub(crate) const ALL: [Self; 5] =
        [Self::HfAlpha, Self::HfBeta, Self::HmOmega, Self::PfDora, Self::PmAlex];

    /// Returns the name that the voice has in the model.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HfAlpha => "hf_alpha",
            Self::HfBeta => "hf_beta",
            Self::HmOmega => "hm_omega",
            Self::PfDora => "pf_dora",
            Self::PmAlex => "pm_alex",
        }
    }

    fn language(self) -> Language {
        match self {
            Self::HfAlpha | Self::HfBeta | Self::HmOmega => Language::Hindi,
            Self::PfDora | Self::PmAlex => Language::Portuguese,
        }
    }

    /// Returns the name of the voice's file.
    pub(crate) fn file(self) -> String {
        format!("{}.bin", self.name())
    }
}

/// The reason why the model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KokoroError {
    #[error("could not read {file}: {source}")]
    Read { file: String, source: io::Error },
    #[error("could not use {0}: its size is wrong")]
    Style(String),
    #[error("could not use {NETWORK_FILE}: {0}")]
    Network(String),
    #[error("could not run the network: {0}")]
    Run(String),
}

/// A loaded model.
pub(crate) struct Kokoro {
    network: Model,
    inputs: [NodeId; 3],
    output: NodeId,
    /// The styles of each voice.
    voices: Vec<(&'static str, Vec<f32>)>,
}

impl Kokoro {
    /// Loads the model from its folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, KokoroError> {
        let read = |file: String| match std::fs::read(folder.join(&file)) {
            Ok(content) => Ok((file, content)),
            Err(source) => Err(KokoroError::Read { file, source }),
        };
        let mut voices = Vec::new();
        for voice in VoiceName::ALL {
            let (file, content) = match read(voice.file()) {
                Ok(found) => found,
                // An earlier version installed fewer voices.
                Err(KokoroError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(e) => return Err(e),
            };
            if content.len() != VOICE_BYTES {
                return Err(KokoroError::Style(file));
            }
            let (values, _) = content.as_chunks::<4>();
            voices.push((voice.name(), values.iter().map(|v| f32::from_le_bytes(*v)).collect()));
        }
        let invalid = |reason: &dyn std::fmt::Display| KokoroError::Network(reason.to_string());
        let (_, network) = read(NETWORK_FILE.to_owned())?;
        let network = ModelOptions::with_ops(operators()).load(network).map_err(|e| invalid(&e))?;
        let node = |name| network.node_id(name).map_err(|e| invalid(&e));
        let inputs = [node("tokens")?, node("style")?, node("speed")?];
        let output = node("audio")?;
        Ok(Self { network, inputs, output, voices })
    }

    /// Speaks phonemes. Passes samples and their rate to `deliver`. An unknown voice is the first
    /// one.
    pub(crate) fn speak<E: From<KokoroError>>(
        &self,
        phonemes: &str,
        voice: &str,
        (rate, pitch): (f32, f32),
        mut deliver: impl FnMut(u32, Vec<f32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let ids: Vec<i32> = phonemes.chars().filter_map(id).collect();
        let found = self.voices.iter().find(|(name, _)| *name == voice).or(self.voices.first());
        let styles = found.map(|(_, styles)| styles.as_slice()).unwrap_or_default();
        // Faster playback raises the pitch. Slower speech compensates for the time, within the
        // helper's limits of memory and time.
        let pitch = pitch.clamp(0.7, 1.4);
        let speed = (rate / pitch).clamp(0.5, 3.0);
        for part in ids.chunks(PHONEMES_MAX) {
            let samples = self.run(part, styles, speed).map_err(KokoroError::Run)?;
            deliver((RATE * pitch) as u32, samples)?;
        }
        Ok(())
    }

    fn run(&self, ids: &[i32], styles: &[f32], speed: f32) -> Result<Vec<f32>, String> {
        let styles = styles.chunks_exact(STYLE_VALUES);
        let style = styles.clone().nth(ids.len().saturating_sub(1)).or(styles.last());
        let style = style.ok_or("the voice has no style")?;
        // A pause at both ends.
        let tokens = [&[0], ids, &[0]].concat();
        let speed = [speed];
        let failed = |e: &dyn std::fmt::Display| e.to_string();
        let tokens = ValueView::from_shape([1, tokens.len()], &tokens).map_err(|e| failed(&e))?;
        let style = ValueView::from_shape([1, STYLE_VALUES], style).map_err(|e| failed(&e))?;
        let speed = ValueView::from_shape([1], &speed).map_err(|e| failed(&e))?;
        let [tokens_node, style_node, speed_node] = self.inputs;
        let inputs = vec![
            (tokens_node, tokens.into()),
            (style_node, style.into()),
            (speed_node, speed.into()),
        ];
        let [audio] = self.network.run_n(inputs, [self.output], None).map_err(|e| failed(&e))?;
        let (_, mut samples) = audio.into_shape_vec::<f32, 1>().map_err(|e| failed(&e))?;
        samples.iter_mut().take(CLICK_SAMPLES).for_each(|sample| *sample = 0.0);
        Ok(samples)
    }
}

/// Returns the number of a phoneme or punctuation mark in the network's vocabulary, or `None` if it
/// is not spoken.
fn id(phoneme: char) -> Option<i32> {
    Some(match phoneme {
        ';' => 1,
        ':' => 2,
        ',' => 3,
        '.' => 4,
        '!' => 5,
        '?' => 6,
        '—' => 9,
        '…' => 10,
        ' ' => 16,
        '\u{303}' => 17,
        'A' => 24,
        'I' => 25,
        'W' => 39,
        'Y' => 41,
        'a' => 43,
        'b' => 44,
        'c' => 45,
        'd' => 46,
        'e' => 47,
        'f' => 48,
        'h' => 50,
        'i' => 51,
        'j' => 52,
        'k' => 53,
        'l' => 54,
        'm' => 55,
        'n' => 56,
        'o' => 57,
        'p' => 58,
        'q' => 59,
        'r' => 60,
        's' => 61,
        't' => 62,
        'u' => 63,
        'v' => 64,
        'w' => 65,
        'x' => 66,
        'y' => 67,
        'z' => 68,
        'ɐ' => 70,
        'æ' => 72,
        'ɔ' => 76,
        'ɖ' => 80,
        'ʤ' => 82,
        'ə' => 83,
        'ɛ' => 86,
        'ɟ' => 90,
        'ɡ' => 92,
        'ɪ' => 102,
        'ŋ' => 112,
        'ɳ' => 113,
        'ɲ' => 114,
        'ɾ' => 125,
        'ɽ' => 129,
        'ʂ' => 130,
        'ʃ' => 131,
        'ʈ' => 132,
        'ʧ' => 133,
        'ʊ' => 135,
        'ʋ' => 136,
        'ʌ' => 138,
        'ɣ' => 139,
        'ʎ' => 143,
        'ʒ' => 147,
        'ˈ' => 156,
        'ˌ' => 157,
        'ː' => 158,
        'ʰ' => 162,
        _ => return None,
    })
}

/// The operators of the network. A network that has others is refused.
fn operators() -> OpRegistry {
    op_registry!(
        Add,
        And,
        Atan,
        Cast,
        Clip,
        Concat,
        ConstantOfShape,
        Conv,
        ConvInteger,
        ConvTranspose,
        Cos,
        CumSum,
        DequantizeLinear,
        Div,
        DynamicQuantizeLinear,
        Equal,
        Exp,
        Expand,
        Floor,
        Gather,
        Gelu,
        Greater,
        GreaterOrEqual,
        LSTM,
        LayerNormalization,
        LeakyRelu,
        Less,
        MatMul,
        MatMulInteger,
        Mul,
        NonZero,
        Pad,
        Pow,
        Range,
        ReduceMean,
        ReduceSum,
        Reshape,
        Resize,
        Round,
        ScatterND,
        Shape,
        Sigmoid,
        Sin,
        Slice,
        Softmax,
        Split,
        Sqrt,
        Squeeze,
        Sub,
        Tanh,
        Transpose,
        Unsqueeze,
        Where
    )
}

#[cfg(test)]
mod tests {
    use super::{Language, VoiceName, id};

    fn assert_known(language: Language, text: &str) {
        for phoneme in language.phonemes(text).chars() {
            assert!(id(phoneme).is_some(), "{phoneme:?} in {text}");
        }
    }

    #[test]
    fn the_vocabulary_has_all_phonemes_of_the_rules() {
        let letters: String =
            ('\u{904}'..='\u{939}').chain('\u{958}'..='\u{961}').flat_map(|c| [c, ' ']).collect();
        let signs: String = ('\u{900}'..='\u{903}')
            .chain('\u{93a}'..='\u{94f}')
            .flat_map(|c| ['क', c, 'क', ' '])
            .collect();
        for text in [&letters, &signs, "दुःख, क्यों? श्रीमान! ज्ञान; क्षमा: वाह… संबंध।"]
        {
            assert_known(Language::Hindi, text);
        }
        // All sequences of three letters, before a vowel and at the end of a word.
        let letters = "abcçdefghijklmnopqrstuvwxyzãáâàéêíóôõúü";
        for first in letters.chars() {
            for second in letters.chars() {
                let words = letters
                    .chars()
                    .map(|third| format!("{first}{second}{third}a {first}{second}{third}; "));
                assert_known(Language::Portuguese, &words.collect::<String>());
            }
        }
    }

    #[test]
    fn a_language_is_installed_with_all_of_its_voices() {
        let files = ["kokoro.onnx", "hf_alpha.bin", "hf_beta.bin", "hm_omega.bin", "pf_dora.bin"];
        assert_eq!(Language::installed(files.into_iter()), [Language::Hindi]);
        let all = VoiceName::ALL.map(VoiceName::file);
        let all = Language::installed(all.iter().map(String::as_str));
        assert_eq!(all, [Language::Hindi, Language::Portuguese]);
    }
}
