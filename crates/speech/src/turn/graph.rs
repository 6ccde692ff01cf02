//! Removes the quantisation of intermediate values from an ONNX network.
//!
//! Quantised networks have a pair of `QuantizeLinear` and `DequantizeLinear` after each operator.
//! `rten` runs these pairs as operators instead of fusing them, which is slow and loses precision.
//! Without them, only the weights are quantised, and `rten` dequantises them once, when it loads
//! the network.

use std::collections::{HashMap, HashSet};

/// Field numbers of ONNX's protobuf messages `ModelProto`, `GraphProto`, `NodeProto` and
/// `TensorProto`.
const MODEL_GRAPH: u64 = 7;
const GRAPH_NODE: u64 = 1;
const GRAPH_INITIALIZER: u64 = 5;
const GRAPH_VALUE_INFO: u64 = 13;
const NODE_INPUT: u64 = 1;
const NODE_OUTPUT: u64 = 2;
const NODE_OPERATOR: u64 = 4;
const TENSOR_NAME: u64 = 8;

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A field of a message.
struct Field<'a> {
    number: u64,
    /// The field with its tag.
    encoded: &'a [u8],
    /// The value of a message or string, otherwise empty.
    value: &'a [u8],
}

/// A node of the graph.
struct Node<'a> {
    fields: Vec<Field<'a>>,
    operator: &'a [u8],
    input: &'a [u8],
    output: &'a [u8],
}

/// Returns the network without the quantisation of intermediate values.
///
/// # Errors
///
/// Fails with the reason if the file is not a valid protobuf message with a graph.
pub(super) fn remove_quantisation(model: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut output = Vec::with_capacity(model.len());
    let mut has_graph = false;
    for field in fields(model)? {
        if field.number == MODEL_GRAPH {
            has_graph = true;
            write(&mut output, MODEL_GRAPH, &rewrite_graph(field.value)?);
        } else {
            output.extend_from_slice(field.encoded);
        }
    }
    if has_graph { Ok(output) } else { Err("it has no graph") }
}

fn rewrite_graph(graph: &[u8]) -> Result<Vec<u8>, &'static str> {
    let graph = fields(graph)?;
    let of = |number| graph.iter().filter(move |field| field.number == number);
    let mut constants = HashSet::new();
    for tensor in of(GRAPH_INITIALIZER) {
        constants.extend(first(&fields(tensor.value)?, TENSOR_NAME));
    }
    let nodes = of(GRAPH_NODE).map(|field| node(field.value)).collect::<Result<Vec<_>, _>>()?;
    let is_removed = |node: &Node<'_>| match node.operator {
        b"QuantizeLinear" => true,
        b"DequantizeLinear" => !constants.contains(node.input),
        _ => false,
    };
    // The value from which each removed value was computed.
    let sources: HashMap<&[u8], &[u8]> = nodes
        .iter()
        .filter(|node| is_removed(node))
        .map(|node| (node.output, node.input))
        .collect();
    let mut output = Vec::new();
    for node in nodes.iter().filter(|node| !is_removed(node)) {
        let mut rewritten = Vec::new();
        for field in &node.fields {
            if field.number == NODE_INPUT {
                write(&mut rewritten, NODE_INPUT, source_of(&sources, field.value));
            } else {
                rewritten.extend_from_slice(field.encoded);
            }
        }
        write(&mut output, GRAPH_NODE, &rewritten);
    }
    // The remaining shapes of intermediate values would name values that no longer exist.
    for field in graph.iter().filter(|f| !matches!(f.number, GRAPH_NODE | GRAPH_VALUE_INFO)) {
        output.extend_from_slice(field.encoded);
    }
    Ok(output)
}

/// Returns the value from which a value was computed by removed nodes.
fn source_of<'a>(sources: &HashMap<&[u8], &'a [u8]>, mut name: &'a [u8]) -> &'a [u8] {
    // The limit ends cycles, which no valid graph has.
    for _ in 0..sources.len() {
        match sources.get(name) {
            Some(source) => name = source,
            None => break,
        }
    }
    name
}

fn node(message: &[u8]) -> Result<Node<'_>, &'static str> {
    let fields = fields(message)?;
    let [operator, input, output] = [NODE_OPERATOR, NODE_INPUT, NODE_OUTPUT]
        .map(|number| first(&fields, number).unwrap_or_default());
    Ok(Node { operator, input, output, fields })
}

/// Returns the value of the first field with this number.
fn first<'a>(fields: &[Field<'a>], number: u64) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.number == number).map(|field| field.value)
}

/// Splits a message into its fields.
fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, &'static str> {
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
fn write(output: &mut Vec<u8>, number: u64, value: &[u8]) {
    for mut part in [number << 3 | BYTES, value.len() as u64] {
        while part > 0x7f {
            output.push(part as u8 | 0x80);
            part >>= 7;
        }
        output.push(part as u8);
    }
    output.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[(u64, &[u8])]) -> Vec<u8> {
        let mut output = Vec::new();
        for (number, value) in parts {
            write(&mut output, *number, value);
        }
        output
    }

    fn node_of(operator: &str, inputs: &[&str], to: &str) -> Vec<u8> {
        let mut parts: Vec<(u64, &[u8])> =
            inputs.iter().map(|input| (NODE_INPUT, input.as_bytes())).collect();
        parts.push((NODE_OUTPUT, to.as_bytes()));
        parts.push((NODE_OPERATOR, operator.as_bytes()));
        message(&parts)
    }

    fn model(nodes: &[Vec<u8>]) -> Vec<u8> {
        let weight = message(&[(TENSOR_NAME, b"weight")]);
        let mut parts: Vec<(u64, &[u8])> =
            nodes.iter().map(|node| (GRAPH_NODE, node.as_slice())).collect();
        parts.push((GRAPH_INITIALIZER, &weight));
        // The version of the format, a number.
        let mut model = vec![0x08, 10];
        write(&mut model, MODEL_GRAPH, &message(&parts));
        model
    }

    #[test]
    fn only_the_quantisation_of_intermediate_values_is_removed() {
        let quantised = model(&[
            node_of("DequantizeLinear", &["weight", "scale"], "w"),
            node_of("QuantizeLinear", &["input", "scale"], "q1"),
            node_of("DequantizeLinear", &["q1", "scale"], "d1"),
            node_of("MatMul", &["d1", "w"], "product"),
            node_of("QuantizeLinear", &["product", "scale"], "q2"),
            node_of("DequantizeLinear", &["q2", "scale"], "d2"),
            node_of("Relu", &["d2"], "output"),
        ]);
        let plain = model(&[
            node_of("DequantizeLinear", &["weight", "scale"], "w"),
            node_of("MatMul", &["input", "w"], "product"),
            node_of("Relu", &["product"], "output"),
        ]);
        assert_eq!(remove_quantisation(&quantised).unwrap(), plain);
        assert_eq!(remove_quantisation(&plain).unwrap(), plain);
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = model(&[
            node_of("QuantizeLinear", &["b"], "a"),
            node_of("QuantizeLinear", &["a"], "b"),
            node_of("Relu", &["a"], "output"),
        ]);
        assert!(remove_quantisation(&whole).is_ok(), "a cycle ends");
        for length in 0..whole.len() {
            assert!(remove_quantisation(&whole[..length]).is_err(), "{length}");
        }
        for bad in [&[0x0f_u8][..], &[0xff; 12], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
            assert!(remove_quantisation(bad).is_err(), "{bad:?}");
        }
    }
}
