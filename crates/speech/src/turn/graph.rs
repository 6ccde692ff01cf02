//! Removes the quantisation of intermediate values from an ONNX network.
//!
//! Quantised networks have a pair of `QuantizeLinear` and `DequantizeLinear` after each operator.
//! `rten` runs these pairs as operators instead of fusing them, which is slow and loses precision.
//! Without them, only the weights are quantised, and `rten` dequantises them once, when it loads
//! the network.

use std::collections::{HashMap, HashSet};

use crate::protobuf::{
    Field, GRAPH_INITIALIZER, GRAPH_NODE, GRAPH_VALUE_INFO, NODE_INPUT, NODE_OPERATOR, NODE_OUTPUT,
    TENSOR_NAME, fields, first, replace_graph, write,
};

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
    replace_graph(model, rewrite_graph)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::MODEL_GRAPH;

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
