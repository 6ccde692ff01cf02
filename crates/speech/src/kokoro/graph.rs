//! Rewrites the network with standard operators.
//!
//! ONNX Runtime has operators of its own, which `rten` runs only with all of its operators in the
//! program, and a Fourier transform. Each of them is a few standard operators: products with a
//! transposed matrix, LSTMs with quantised weights, an addition before a normalisation, an
//! activation, and a convolution with sines and cosines.

use std::f64::consts::TAU;

use crate::protobuf::{
    Field, GRAPH_INITIALIZER, GRAPH_NODE, GRAPH_VALUE_INFO, NODE_INPUT, NODE_OPERATOR, NODE_OUTPUT,
    TENSOR_NAME, fields, first, replace_graph, write,
};

/// Field numbers of ONNX's `NodeProto`, `AttributeProto` and `TensorProto`.
const NODE_ATTRIBUTE: u64 = 5;
const ATTRIBUTE_NAME: u64 = 1;
const ATTRIBUTE_STRING: u64 = 4;
const TENSOR_DATA: u64 = 9;
/// The types of an attribute and of a tensor, each as a field.
const TYPE_STRING: &[u8] = &[0xa0, 1, 3];
const TYPE_INTS: &[u8] = &[0xa0, 1, 7];
/// The tag of a number of an attribute with several numbers.
const ATTRIBUTE_INTS: u8 = 0x40;
const TYPE_FLOATS: &[u8] = &[0x10, 1];
const TYPE_INT64: &[u8] = &[0x10, 7];

/// Length of the Fourier transform, the distance between two of them, and the number of frequencies.
const TRANSFORM: u8 = 20;
const TRANSFORM_STEP: u8 = 5;
const FREQUENCIES: u8 = TRANSFORM / 2 + 1;
const BASIS: &str = "offhook.basis";
const SIGNAL_SHAPE: &str = "offhook.signal_shape";
const SPECTRUM_SHAPE: &str = "offhook.spectrum_shape";

/// Returns the network with standard operators.
///
/// # Errors
///
/// Fails with the reason if the file is not a valid protobuf message with a graph.
pub(crate) fn standard_operators(model: &[u8]) -> Result<Vec<u8>, &'static str> {
    replace_graph(model, rewrite_graph)
}

fn rewrite_graph(graph: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut output = Vec::with_capacity(graph.len());
    for field in fields(graph)? {
        match field.number {
            GRAPH_NODE => rewrite_node(&mut output, &field)?,
            GRAPH_VALUE_INFO => {}
            _ => output.extend_from_slice(field.encoded),
        }
    }
    for tensor in [
        tensor(BASIS, &[2 * FREQUENCIES, 1, TRANSFORM], TYPE_FLOATS, &basis()),
        tensor(SIGNAL_SHAPE, &[3], TYPE_INT64, &int64s(&[1, 1, -1])),
        tensor(SPECTRUM_SHAPE, &[4], TYPE_INT64, &int64s(&[1, 2, FREQUENCIES.into(), -1])),
    ] {
        write(&mut output, GRAPH_INITIALIZER, &tensor);
    }
    Ok(output)
}

/// Writes a node of the graph, or the nodes that replace it.
fn rewrite_node(graph: &mut Vec<u8>, field: &Field<'_>) -> Result<(), &'static str> {
    let node = fields(field.value)?;
    let inputs: Vec<&[u8]> =
        node.iter().filter(|f| f.number == NODE_INPUT).map(|f| f.value).collect();
    let input = |index: usize| inputs.get(index).copied().unwrap_or_default();
    let outputs: Vec<&[u8]> =
        node.iter().filter(|f| f.number == NODE_OUTPUT).map(|f| f.value).collect();
    let output = outputs.first().copied().unwrap_or_default();
    // Names of the values between the new nodes.
    let [between, second, third] =
        ["1", "2", "3"].map(|suffix| [output, b".offhook.", suffix.as_bytes()].concat());
    let attributes = |names: &[&str]| {
        let named = |f: &&Field<'_>| {
            let attribute = fields(f.value).unwrap_or_default();
            let name = first(&attribute, ATTRIBUTE_NAME);
            f.number == NODE_ATTRIBUTE
                && name.is_some_and(|n| names.iter().any(|m| n == m.as_bytes()))
        };
        node.iter().filter(named).flat_map(|f| f.encoded.to_vec()).collect::<Vec<u8>>()
    };
    let mut add = |operator: &str, inputs: &[&[u8]], outputs: &[&[u8]], attributes: &[u8]| {
        let mut node = attributes.to_vec();
        inputs.iter().for_each(|input| write(&mut node, NODE_INPUT, input));
        outputs.iter().for_each(|output| write(&mut node, NODE_OUTPUT, output));
        write(&mut node, NODE_OPERATOR, operator.as_bytes());
        write(graph, GRAPH_NODE, &node);
    };
    match first(&node, NODE_OPERATOR).unwrap_or_default() {
        b"FusedMatMul" => {
            add("Transpose", &[input(0)], &[&between], &ints("perm", &[0, 2, 1]));
            add("MatMul", &[&between, input(1)], &[output], &[]);
        }
        b"FastGelu" => {
            add("Add", &[input(0), input(1)], &[&between], &[]);
            add("Gelu", &[&between], &[output], &string("approximate", "tanh"));
        }
        b"SkipLayerNormalization" => {
            add("Add", &[input(0), input(1)], &[&between], &[]);
            let inputs = [&between, input(2), input(3)];
            add("LayerNormalization", &inputs, &[output], &attributes(&["epsilon"]));
        }
        b"DynamicQuantizeLSTM" => {
            // The weights, then the recurrent weights. Each has a scale and a zero point per
            // direction.
            let mut floats = Vec::new();
            for (weights, scale, zero, name) in [(1, 8, 9, &between), (2, 10, 11, &second)] {
                let quantised = [input(weights), input(scale), input(zero)];
                let stored = [name.as_slice(), b".stored"].concat();
                add("DequantizeLinear", &quantised, &[&stored], &int("axis", 0));
                add("Transpose", &[&stored], &[name], &ints("perm", &[0, 2, 1]));
                floats.push(name.as_slice());
            }
            let [weights, recurrent] = floats.as_slice() else { return Err("it has no weights") };
            let inputs = [input(0), weights, recurrent, input(3), input(4), input(5), input(6)];
            add("LSTM", &inputs, &outputs, &attributes(&["direction", "hidden_size"]));
        }
        b"STFT" => {
            add("Reshape", &[input(0), SIGNAL_SHAPE.as_bytes()], &[&between], &[]);
            let size = [ints("strides", &[TRANSFORM_STEP]), ints("kernel_shape", &[TRANSFORM])];
            add("Conv", &[&between, BASIS.as_bytes()], &[&second], &size.concat());
            add("Reshape", &[&second, SPECTRUM_SHAPE.as_bytes()], &[&third], &[]);
            add("Transpose", &[&third], &[output], &ints("perm", &[0, 3, 2, 1]));
        }
        _ => graph.extend_from_slice(field.encoded),
    }
    Ok(())
}

/// Returns an attribute of a node. `numbers` are below 128, so that each has one byte.
fn ints(name: &str, numbers: &[u8]) -> Vec<u8> {
    let mut attribute = TYPE_INTS.to_vec();
    write(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    attribute.extend(numbers.iter().flat_map(|number| [ATTRIBUTE_INTS, *number]));
    node_attribute(&attribute)
}

fn int(name: &str, number: u8) -> Vec<u8> {
    // The type, then the number.
    let mut attribute = vec![0xa0, 1, 2, 0x18, number];
    write(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    node_attribute(&attribute)
}

fn string(name: &str, value: &str) -> Vec<u8> {
    let mut attribute = TYPE_STRING.to_vec();
    write(&mut attribute, ATTRIBUTE_NAME, name.as_bytes());
    write(&mut attribute, ATTRIBUTE_STRING, value.as_bytes());
    node_attribute(&attribute)
}

fn node_attribute(attribute: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    write(&mut field, NODE_ATTRIBUTE, attribute);
    field
}

/// Returns a tensor. `shape` has numbers below 128.
fn tensor(name: &str, shape: &[u8], data_type: &[u8], data: &[u8]) -> Vec<u8> {
    let mut tensor: Vec<u8> = shape.iter().flat_map(|size| [0x08, *size]).collect();
    tensor.extend_from_slice(data_type);
    write(&mut tensor, TENSOR_NAME, name.as_bytes());
    write(&mut tensor, TENSOR_DATA, data);
    tensor
}

fn int64s(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Returns the real and the imaginary part of the transform of each sample, for each frequency, with
/// a Hann window. The imaginary part is exactly 0 at the lowest and the highest frequency: the
/// network uses its sign.
fn basis() -> Vec<u8> {
    let turns =
        |frequency: u8, sample: u8| f64::from(frequency) * f64::from(sample) / f64::from(TRANSFORM);
    let window = |sample: u8| 0.5 - 0.5 * (TAU * turns(1, sample)).cos();
    let mut values = Vec::new();
    for frequency in 0..FREQUENCIES {
        values.extend((0..TRANSFORM).map(|n| (TAU * turns(frequency, n)).cos() * window(n)));
    }
    for frequency in 0..FREQUENCIES {
        let is_real = frequency == 0 || frequency == FREQUENCIES - 1;
        let sine = |n| if is_real { 0.0 } else { -(TAU * turns(frequency, n)).sin() * window(n) };
        values.extend((0..TRANSFORM).map(sine));
    }
    values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::MODEL_GRAPH;

    fn node_of(operator: &str, inputs: &[&str], to: &str) -> Vec<u8> {
        let mut node = Vec::new();
        inputs.iter().for_each(|input| write(&mut node, NODE_INPUT, input.as_bytes()));
        write(&mut node, NODE_OUTPUT, to.as_bytes());
        write(&mut node, NODE_OPERATOR, operator.as_bytes());
        node
    }

    fn model(nodes: &[Vec<u8>]) -> Vec<u8> {
        let mut graph = Vec::new();
        nodes.iter().for_each(|node| write(&mut graph, GRAPH_NODE, node));
        let mut model = Vec::new();
        write(&mut model, MODEL_GRAPH, &graph);
        model
    }

    fn operators(model: &[u8]) -> Vec<String> {
        let graph = fields(first(&fields(model).unwrap(), MODEL_GRAPH).unwrap()).unwrap();
        let nodes = graph.iter().filter(|field| field.number == GRAPH_NODE);
        nodes
            .map(|node| first(&fields(node.value).unwrap(), NODE_OPERATOR).unwrap().to_vec())
            .map(|operator| String::from_utf8(operator).unwrap())
            .collect()
    }

    #[test]
    fn other_operators_are_replaced() {
        let lstm: Vec<String> = (0..12).map(|n| format!("i{n}")).collect();
        let lstm: Vec<&str> = lstm.iter().map(String::as_str).collect();
        let rewritten = standard_operators(&model(&[
            node_of("FusedMatMul", &["a", "b"], "c"),
            node_of("FastGelu", &["c", "bias"], "d"),
            node_of("SkipLayerNormalization", &["d", "c", "scale", "bias"], "e"),
            node_of("DynamicQuantizeLSTM", &lstm, "f"),
            node_of("STFT", &["f"], "g"),
            node_of("Relu", &["g"], "h"),
        ]))
        .unwrap();
        assert_eq!(
            operators(&rewritten).join(" "),
            "Transpose MatMul Add Gelu Add LayerNormalization DequantizeLinear Transpose \
             DequantizeLinear Transpose LSTM Reshape Conv Reshape Transpose Relu"
        );
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = model(&[node_of("STFT", &["a"], "b"), node_of("Relu", &["b"], "c")]);
        for length in 0..whole.len() {
            assert!(standard_operators(&whole[..length]).is_err(), "{length}");
        }
        assert!(standard_operators(&[0xff; 12]).is_err());
    }
}
