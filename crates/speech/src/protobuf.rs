//! Protobuf messages, and those of ONNX: enough to rewrite the graph of a network without knowing the
//! rest of it.

/// Field numbers of ONNX's protobuf messages `ModelProto`, `GraphProto`, `NodeProto` and
/// `TensorProto`.
pub(crate) const MODEL_GRAPH: u64 = 7;
pub(crate) const GRAPH_NODE: u64 = 1;
pub(crate) const GRAPH_INITIALIZER: u64 = 5;
pub(crate) const GRAPH_VALUE_INFO: u64 = 13;
pub(crate) const NODE_INPUT: u64 = 1;
pub(crate) const NODE_OUTPUT: u64 = 2;
pub(crate) const NODE_OPERATOR: u64 = 4;
pub(crate) const TENSOR_NAME: u64 = 8;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A field of a message.
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    /// The field with its tag.
    pub(crate) encoded: &'a [u8],
    /// The value of a message or string, otherwise empty.
    pub(crate) value: &'a [u8],
}

/// Returns the value of the first field with this number.
pub(crate) fn first<'a>(fields: &[Field<'a>], number: u64) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.number == number).map(|field| field.value)
}

/// Splits a message into its fields.
pub(crate) fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let tag = varint(&mut rest)?;
        let length = match tag & 7 {
            VARINT => {
                varint(&mut rest)?;
                0
            }
            FIXED64 => 8,
            FIXED32 => 4,
            BYTES => usize::try_from(varint(&mut rest)?).map_err(|_| TRUNCATED)?,
            _ => return Err("it is not a protobuf message"),
        };
        let (value, tail) = rest.split_at_checked(length).ok_or(TRUNCATED)?;
        rest = tail;
        let encoded = start.split_at(start.len() - rest.len()).0;
        fields.push(Field { number: tag >> 3, encoded, value });
    }
    Ok(fields)
}

const TRUNCATED: &str = "it is truncated";

/// Reads a number with seven bits in each byte, the lowest ones first.
fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(TRUNCATED)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number is too long")
}

/// Writes a field that contains a message or a string.
pub(crate) fn write(output: &mut Vec<u8>, number: u64, value: &[u8]) {
    for mut part in [number << 3 | BYTES, value.len() as u64] {
        while part > 0x7f {
            output.push(part as u8 | 0x80);
            part >>= 7;
        }
        output.push(part as u8);
    }
    output.extend_from_slice(value);
}

/// Returns a model with the graph that `rewrite` makes of its graph.
///
/// # Errors
///
/// Fails with the reason if the model is not a valid message with a graph, or if `rewrite` fails.
pub(crate) fn replace_graph(
    model: &[u8],
    rewrite: impl Fn(&[u8]) -> Result<Vec<u8>, &'static str>,
) -> Result<Vec<u8>, &'static str> {
    let mut output = Vec::with_capacity(model.len());
    let mut has_graph = false;
    for field in fields(model)? {
        if field.number == MODEL_GRAPH {
            has_graph = true;
            write(&mut output, MODEL_GRAPH, &rewrite(field.value)?);
        } else {
            output.extend_from_slice(field.encoded);
        }
    }
    if has_graph { Ok(output) } else { Err("it has no graph") }
}
