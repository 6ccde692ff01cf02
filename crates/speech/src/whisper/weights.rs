//! The weights of the network: read from CTranslate2's `model.bin` at the installation of a model,
//! stored as safetensors with 32-bit floats, and memory-mapped by the helpers, which share the
//! memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{WEIGHTS_FILE, WhisperError};
use crate::neural::mapped::Mapped;

/// The supported versions of the file, followed by other limits.
const VERSIONS: std::ops::RangeInclusive<u32> = 4..=6;
const VARIABLES_MAX: u32 = 2_000;
const RANK_MAX: usize = 3;
const HEADER_BYTES_MAX: usize = 1 << 20;
/// CTranslate2's numbers for the types of values.
const FLOAT32: u8 = 0;
const FLOAT16: u8 = 4;

/// A variable in the header of a safetensors file.
#[derive(Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The location of a variable's values.
#[derive(Clone, Debug)]
pub(super) struct Span(Range<usize>);

/// Mapped weights.
pub(super) struct Weights {
    file: Mapped,
    entries: HashMap<String, Entry>,
    /// The offset of the values.
    start: usize,
}

impl Weights {
    /// Maps a file into memory.
    pub(super) fn open(path: &Path) -> Result<Self, WhisperError> {
        let file = Mapped::open(path)
            .map_err(|source| WhisperError::Read { file: WEIGHTS_FILE, source })?;
        Self::new(file)
    }

    pub(super) fn new(file: Mapped) -> Result<Self, WhisperError> {
        let length = file.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
        let length = length
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= HEADER_BYTES_MAX)
            .ok_or_else(|| invalid("it has no header"))?;
        let header = file.get(8..8 + length).ok_or_else(|| invalid("it is truncated"))?;
        let entries = serde_json::from_slice(header).map_err(|e| invalid(&e.to_string()))?;
        Ok(Self { file, entries, start: 8 + length })
    }

    /// Returns the shape of a variable.
    pub(super) fn shape(&self, name: &str) -> Result<&[usize], WhisperError> {
        let entry = self.entries.get(name).ok_or_else(|| invalid(&format!("{name} is missing")))?;
        Ok(&entry.shape)
    }

    /// Returns the location of a variable, which must have this shape.
    pub(super) fn find(&self, name: &str, shape: &[usize]) -> Result<Span, WhisperError> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(invalid(&format!("{name} has the shape {found:?}, not {shape:?}")));
        }
        let [from, to] = self.entries.get(name).map_or([0, 0], |entry| entry.data_offsets);
        let range = from
            .checked_add(self.start)
            .zip(to.checked_add(self.start))
            .map_or(0..0, |(from, to)| from..to);
        let span = Span(range);
        if self.values(&span).len() == shape.iter().product::<usize>() {
            Ok(span)
        } else {
            Err(invalid(&format!("{name} is truncated")))
        }
    }

    /// Returns the values of a variable.
    pub(super) fn values(&self, span: &Span) -> &[f32] {
        let bytes = self.file.get(span.0.clone()).unwrap_or_default();
        bytemuck::try_cast_slice(bytes).unwrap_or_default()
    }
}

fn invalid(reason: &str) -> WhisperError {
    WhisperError::Invalid { file: WEIGHTS_FILE, reason: reason.to_owned() }
}

/// Converts CTranslate2's `model.bin` to safetensors with 32-bit floats. Variables of other types
/// are omitted.
///
/// # Errors
///
/// Fails with the reason if the file has another format, is truncated, or has values that are not
/// finite.
pub(crate) fn convert(file: &[u8]) -> Result<Vec<u8>, String> {
    let mut reader = Reader(file);
    let version = reader.u32()?;
    let spec = reader.text()?;
    if !VERSIONS.contains(&version) || spec != "WhisperSpec" {
        return Err(format!(
            "it is {spec:?} in version {version}, not WhisperSpec in {VERSIONS:?}"
        ));
    }
    let _revision = reader.u32()?;
    let count = reader.u32()?;
    if count > VARIABLES_MAX {
        return Err(format!("it has {count} variables"));
    }
    let mut entries = BTreeMap::new();
    let mut data = Vec::new();
    for _ in 0..count {
        let name = reader.text()?;
        let [rank] = *reader.bytes()?;
        if usize::from(rank) > RANK_MAX {
            return Err(format!("{name} has {rank} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(reader.u32()? as usize);
        }
        let [kind] = *reader.bytes()?;
        let length = reader.u32()? as usize;
        let content = reader.slice(length)?;
        let start = data.len();
        match kind {
            FLOAT32 => data.extend_from_slice(content),
            FLOAT16 => {
                let (halves, _) = content.as_chunks::<2>();
                for half in halves {
                    let value = from_half(u16::from_le_bytes(*half));
                    data.extend_from_slice(&value.ok_or("a value is not finite")?.to_le_bytes());
                }
            }
            // Integers are settings of the network.
            _ => continue,
        }
        let values = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        if values.and_then(|values| values.checked_mul(4)) != Some(data.len() - start) {
            return Err(format!(
                "{name} has {length} bytes, which do not match its shape {shape:?}"
            ));
        }
        let data_offsets = [start, data.len()];
        entries.insert(name, Entry { dtype: "F32".to_owned(), shape, data_offsets });
    }
    let mut header = serde_json::to_vec(&entries).map_err(|e| e.to_string())?;
    // Aligns the values.
    header.resize(header.len().next_multiple_of(64) + 56, b' ');
    let mut output = (header.len() as u64).to_le_bytes().to_vec();
    output.append(&mut header);
    output.append(&mut data);
    Ok(output)
}

/// Converts a 16-bit float, or returns `None` if it is not finite.
fn from_half(half: u16) -> Option<f32> {
    // The exponent bias of a 32-bit float is 112 larger than that of a half.
    let magnitude = f32::from_bits(u32::from(half & 0x7fff) << 13) * 2f32.powi(112);
    let value = if half & 0x8000 == 0 { magnitude } else { -magnitude };
    (half & 0x7c00 != 0x7c00).then_some(value)
}

/// Reads the parts of a file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.0.split_at_checked(length).ok_or("it is truncated")?;
        self.0 = tail;
        Ok(head)
    }

    fn bytes<const N: usize>(&mut self) -> Result<&'a [u8; N], String> {
        let (head, tail) = self.0.split_first_chunk().ok_or("it is truncated")?;
        self.0 = tail;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.bytes().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// Reads a length in two bytes and a text that ends with a zero.
    fn text(&mut self) -> Result<String, String> {
        let length = u16::from_le_bytes(*self.bytes()?);
        let bytes = self.slice(usize::from(length))?;
        let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        String::from_utf8(text.to_vec()).map_err(|_| "a name is not UTF-8".to_owned())
    }
}
