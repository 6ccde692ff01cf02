//! The encoder and the decoder. Matrices are stored row by row. All products run on the threads of
//! [`crate::neural::start_threads`].

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_simd::{SimdOp as _, SimdUnaryOp as _};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Softmax};

use super::WhisperError;
use super::mel::BANDS;
use super::weights::{Span, Weights};

/// Width of an attention head, which is the same in all Whisper models.
const HEAD: usize = 64;
/// Width of a convolution's kernel.
const KERNEL: usize = 3;
/// Limits of a model's dimensions.
const WIDTH_MAX: usize = 1_280;
const LAYERS_MAX: usize = 32;
const VOCABULARY_MAX: usize = 60_000;
/// Value that is added to a variance before its square root.
const EPSILON: f32 = 1e-5;

/// A loaded network.
pub(super) struct Network {
    weights: Weights,
    gemm: GemmExecutor<f32, f32, f32>,
    width: usize,
    vocabulary: usize,
    /// The maximum numbers of positions of the encoder and the decoder.
    encoder_positions: usize,
    decoder_positions: usize,
    convolutions: [Linear; 2],
    encoder: Vec<EncoderLayer>,
    encoder_norm: Norm,
    encoder_position: Span,
    decoder: Vec<DecoderLayer>,
    decoder_norm: Norm,
    decoder_position: Span,
    embeddings: Span,
}

/// A linear layer: a weight matrix and a bias.
struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Span,
    bias: Span,
}

struct Norm {
    gamma: Span,
    beta: Span,
}

struct SelfAttention {
    norm: Norm,
    /// The layer for queries, keys and values, which are stored side by side.
    input: Linear,
    output: Linear,
}

struct FeedForward {
    norm: Norm,
    input: Linear,
    output: Linear,
}

struct EncoderLayer {
    attention: SelfAttention,
    feed_forward: FeedForward,
}

struct DecoderLayer {
    attention: SelfAttention,
    cross_norm: Norm,
    cross_queries: Linear,
    /// The layer for keys and values of the encoder, which are stored side by side.
    cross_input: Linear,
    cross_output: Linear,
    feed_forward: FeedForward,
}

/// Finds the variables of a network with this width, and checks their shapes.
struct Finder<'a> {
    weights: &'a Weights,
    width: usize,
}

impl Finder<'_> {
    fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, WhisperError> {
        let weight = self.weights.find(&format!("{name}/weight"), &[outputs, inputs])?;
        let bias = self.weights.find(&format!("{name}/bias"), &[outputs])?;
        Ok(Linear { inputs, outputs, weight, bias })
    }

    fn convolution(&self, name: &str, channels: usize) -> Result<Linear, WhisperError> {
        let weight =
            self.weights.find(&format!("{name}/weight"), &[self.width, channels, KERNEL])?;
        let bias = self.weights.find(&format!("{name}/bias"), &[self.width])?;
        Ok(Linear { inputs: channels * KERNEL, outputs: self.width, weight, bias })
    }

    fn norm(&self, name: &str) -> Result<Norm, WhisperError> {
        let part = |part: &str| self.weights.find(&format!("{name}/{part}"), &[self.width]);
        Ok(Norm { gamma: part("gamma")?, beta: part("beta")? })
    }

    fn attention(&self, layer: &str) -> Result<SelfAttention, WhisperError> {
        let name = format!("{layer}/self_attention");
        Ok(SelfAttention {
            norm: self.norm(&format!("{name}/layer_norm"))?,
            input: self.linear(&format!("{name}/linear_0"), self.width, 3 * self.width)?,
            output: self.linear(&format!("{name}/linear_1"), self.width, self.width)?,
        })
    }

    fn feed_forward(&self, layer: &str) -> Result<FeedForward, WhisperError> {
        let name = format!("{layer}/ffn");
        Ok(FeedForward {
            norm: self.norm(&format!("{name}/layer_norm"))?,
            input: self.linear(&format!("{name}/linear_0"), self.width, 4 * self.width)?,
            output: self.linear(&format!("{name}/linear_1"), 4 * self.width, self.width)?,
        })
    }

    fn encoder_layer(&self, index: usize) -> Result<EncoderLayer, WhisperError> {
        let layer = format!("encoder/layer_{index}");
        Ok(EncoderLayer {
            attention: self.attention(&layer)?,
            feed_forward: self.feed_forward(&layer)?,
        })
    }

    fn decoder_layer(&self, index: usize) -> Result<DecoderLayer, WhisperError> {
        let layer = format!("decoder/layer_{index}");
        let cross = format!("{layer}/attention");
        Ok(DecoderLayer {
            attention: self.attention(&layer)?,
            cross_norm: self.norm(&format!("{cross}/layer_norm"))?,
            cross_queries: self.linear(&format!("{cross}/linear_0"), self.width, self.width)?,
            cross_input: self.linear(&format!("{cross}/linear_1"), self.width, 2 * self.width)?,
            cross_output: self.linear(&format!("{cross}/linear_2"), self.width, self.width)?,
            feed_forward: self.feed_forward(&layer)?,
        })
    }
}

impl Network {
    /// Finds the parts of a network and checks their shapes.
    pub(super) fn new(weights: Weights) -> Result<Self, WhisperError> {
        let invalid = |reason: String| WhisperError::Invalid { file: super::WEIGHTS_FILE, reason };
        let dimensions = |name: &str| match weights.shape(name)? {
            [rows, columns] => Ok((*rows, *columns)),
            shape => Err(invalid(format!("{name} has the shape {shape:?}"))),
        };
        let embeddings = "decoder/embeddings/weight";
        let (vocabulary, width) = dimensions(embeddings)?;
        let encoder_position = "encoder/position_encodings/encodings";
        let decoder_position = "decoder/position_encodings/encodings";
        let (encoder_positions, _) = dimensions(encoder_position)?;
        let (decoder_positions, _) = dimensions(decoder_position)?;
        if width == 0
            || !width.is_multiple_of(HEAD)
            || width > WIDTH_MAX
            || vocabulary > VOCABULARY_MAX
        {
            return Err(invalid(format!("it has a width of {width} and {vocabulary} tokens")));
        }
        let layers = |part: &str| {
            let has = |n: &usize| {
                weights.shape(&format!("{part}/layer_{n}/self_attention/linear_0/bias")).is_ok()
            };
            0..(0..LAYERS_MAX).take_while(has).count()
        };
        let find = Finder { weights: &weights, width };
        let convolutions =
            [find.convolution("encoder/conv1", BANDS)?, find.convolution("encoder/conv2", width)?];
        let encoder = layers("encoder").map(|n| find.encoder_layer(n)).collect::<Result<_, _>>()?;
        let decoder = layers("decoder").map(|n| find.decoder_layer(n)).collect::<Result<_, _>>()?;
        Ok(Self {
            gemm: GemmExecutor::new(),
            width,
            vocabulary,
            encoder_positions,
            decoder_positions,
            convolutions,
            encoder,
            encoder_norm: find.norm("encoder/layer_norm")?,
            encoder_position: weights.find(encoder_position, &[encoder_positions, width])?,
            decoder,
            decoder_norm: find.norm("decoder/layer_norm")?,
            decoder_position: weights.find(decoder_position, &[decoder_positions, width])?,
            embeddings: weights.find(embeddings, &[vocabulary, width])?,
            weights,
        })
    }

    /// Returns the number of tokens.
    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Encodes a spectrum with two frames per position.
    pub(super) fn encode(
        &self,
        frames: &[f32],
        positions: usize,
    ) -> Result<Decoder<'_>, WhisperError> {
        if positions > self.encoder_positions {
            return Err(WhisperError::Run("the speech is too long".to_owned()));
        }
        let [first, second] = &self.convolutions;
        let hidden = self.convolve(first, frames, BANDS, 1)?;
        let mut state = self.convolve(second, &hidden, self.width, 2)?;
        add(&mut state, self.weights.values(&self.encoder_position));
        let mut attended = vec![0.0; state.len()];
        for layer in &self.encoder {
            let SelfAttention { norm, input, output } = &layer.attention;
            let parts = self.linear(input, &self.normalise(norm, &state))?;
            let part = |n| Rows {
                data: parts.get(n * self.width..).unwrap_or_default(),
                stride: 3 * self.width,
                count: positions,
            };
            self.attend([part(0), part(1), part(2)], &mut attended)?;
            add(&mut state, &self.linear(output, &attended)?);
            self.feed_forward(&layer.feed_forward, &mut state)?;
        }
        let encoded = self.normalise(&self.encoder_norm, &state);
        let cross = |layer: &DecoderLayer| self.linear(&layer.cross_input, &encoded);
        Ok(Decoder {
            cross: self.decoder.iter().map(cross).collect::<Result<_, _>>()?,
            past: vec![vec![Vec::new(); self.decoder.len()]],
            network: self,
            positions,
            count: 0,
        })
    }

    /// Convolves rows of `channels` values and applies the activation.
    fn convolve(
        &self,
        layer: &Linear,
        rows: &[f32],
        channels: usize,
        step: usize,
    ) -> Result<Vec<f32>, WhisperError> {
        let count = rows.len() / channels;
        // Each row contains the values of its neighbours, channel by channel.
        let mut unfolded = Vec::with_capacity(count / step * layer.inputs);
        for at in (0..count).step_by(step) {
            for channel in 0..channels {
                for offset in 0..KERNEL {
                    // Rows outside contain zeros.
                    let row = (at + offset).checked_sub(KERNEL / 2).filter(|row| *row < count);
                    let value = row.and_then(|row| rows.get(row * channels + channel));
                    unfolded.push(value.copied().unwrap_or(0.0));
                }
            }
        }
        let mut output = self.linear(layer, &unfolded)?;
        Gelu {}.map_mut(&mut output);
        Ok(output)
    }

    fn feed_forward(&self, layer: &FeedForward, state: &mut [f32]) -> Result<(), WhisperError> {
        let mut hidden = self.linear(&layer.input, &self.normalise(&layer.norm, state))?;
        Gelu {}.map_mut(&mut hidden);
        add(state, &self.linear(&layer.output, &hidden)?);
        Ok(())
    }

    fn normalise(&self, norm: &Norm, rows: &[f32]) -> Vec<f32> {
        let gamma = self.weights.values(&norm.gamma);
        let beta = self.weights.values(&norm.beta);
        let mut output = rows.to_vec();
        for row in output.chunks_exact_mut(self.width) {
            let count = row.len() as f32;
            let mean = row.iter().sum::<f32>() / count;
            let variance =
                row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / count;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: 1.0 / (variance + EPSILON).sqrt(),
                element_scale: Some(gamma),
                element_bias: Some(beta),
                ..NormalizeOptions::default()
            };
            Normalize::new_mut(row, options).dispatch();
        }
        output
    }

    fn linear(&self, layer: &Linear, rows: &[f32]) -> Result<Vec<f32>, WhisperError> {
        let count = rows.len() / layer.inputs;
        let mut output = vec![0.0; count * layer.outputs];
        let rows = matrix(rows, [count, layer.inputs], layer.inputs)?;
        let weight = matrix(
            self.weights.values(&layer.weight),
            [layer.outputs, layer.inputs],
            layer.inputs,
        )?;
        let bias = BiasVector::Row(self.weights.values(&layer.bias));
        let options = GemmOptions { bias: Some(bias), ..GemmOptions::default() };
        self.multiply(&mut output, rows, weight.transposed(), options)?;
        Ok(output)
    }

    fn multiply(
        &self,
        output: &mut [f32],
        a: Matrix<'_, f32>,
        b: Matrix<'_, f32>,
        options: GemmOptions<'_, f32, f32, f32>,
    ) -> Result<(), WhisperError> {
        self.gemm
            .gemm(output, GemmInputA::Unpacked(a), GemmInputB::Unpacked(b), options)
            .map_err(|e| WhisperError::Run(e.to_string()))
    }

    /// Computes the attention of all heads, without a mask.
    fn attend(
        &self,
        [queries, keys, values]: [Rows<'_>; 3],
        output: &mut [f32],
    ) -> Result<(), WhisperError> {
        let mut scores = vec![0.0; queries.count * keys.count];
        let mut attended = vec![0.0; queries.count * HEAD];
        for head in (0..self.width).step_by(HEAD) {
            let scale = GemmOptions { alpha: 1.0 / (HEAD as f32).sqrt(), ..GemmOptions::default() };
            self.multiply(&mut scores, queries.head(head)?, keys.head(head)?.transposed(), scale)?;
            for row in scores.chunks_exact_mut(keys.count) {
                Softmax::new_mut(row).dispatch();
            }
            let scores = matrix(&scores, [queries.count, keys.count], keys.count)?;
            self.multiply(&mut attended, scores, values.head(head)?, GemmOptions::default())?;
            for (to, from) in output.chunks_exact_mut(self.width).zip(attended.chunks_exact(HEAD)) {
                if let Some(to) = to.get_mut(head..head + HEAD) {
                    to.copy_from_slice(from);
                }
            }
        }
        Ok(())
    }
}

/// Rows of values with a distance of `stride`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    /// Returns the values of the head that begins at `first`.
    fn head(&self, first: usize) -> Result<Matrix<'a, f32>, WhisperError> {
        matrix(self.data.get(first..).unwrap_or_default(), [self.count, HEAD], self.stride)
    }
}

fn matrix(data: &[f32], shape: [usize; 2], stride: usize) -> Result<Matrix<'_, f32>, WhisperError> {
    NdTensorView::from_slice_with_strides(shape, data, [stride, 1])
        .map_err(|_| WhisperError::Run("a matrix has the wrong size".to_owned()))
}

fn add(to: &mut [f32], values: &[f32]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += value;
    }
}

/// The decoder of one utterance, for several texts of the same length.
pub(super) struct Decoder<'a> {
    network: &'a Network,
    /// The keys and values of the encoder, by layer.
    cross: Vec<Vec<f32>>,
    positions: usize,
    /// The keys and values of the tokens so far, by text and layer. At first there is one text.
    past: Vec<Vec<Vec<f32>>>,
    /// Number of tokens of each text.
    count: usize,
}

impl Decoder<'_> {
    /// Replaces the texts by those with these indices, some of them several times.
    pub(super) fn select(&mut self, texts: impl Iterator<Item = usize>) {
        self.past = texts.filter_map(|text| self.past.get(text).cloned()).collect();
    }

    /// Processes a token of each text. Returns the probabilities of the tokens that follow, as one row
    /// of the vocabulary's size for each text. `suppress` sets the logits of tokens that must not follow
    /// to negative infinity.
    pub(super) fn next(
        &mut self,
        tokens: &[usize],
        suppress: impl Fn(&mut [f32]),
    ) -> Result<Vec<f32>, WhisperError> {
        let state = self.advance(tokens)?;
        let network = self.network;
        let state = network.normalise(&network.decoder_norm, &state);
        let mut logits = vec![0.0; tokens.len() * network.vocabulary];
        let embeddings = network.weights.values(&network.embeddings);
        let embeddings = matrix(embeddings, [network.vocabulary, network.width], network.width)?;
        let state = matrix(&state, [tokens.len(), network.width], network.width)?;
        network.multiply(&mut logits, state, embeddings.transposed(), GemmOptions::default())?;
        for row in logits.chunks_exact_mut(network.vocabulary) {
            suppress(row);
            Softmax::new_mut(row).dispatch();
        }
        Ok(logits)
    }

    /// Processes a token of each text.
    pub(super) fn advance(&mut self, tokens: &[usize]) -> Result<Vec<f32>, WhisperError> {
        let network = self.network;
        let width = network.width;
        if self.count >= network.decoder_positions {
            return Err(WhisperError::Run("the text is too long".to_owned()));
        }
        let row = |span: &Span, at: usize| {
            let values = network.weights.values(span).get(at * width..(at + 1) * width);
            values.ok_or_else(|| WhisperError::Run("a token is unknown".to_owned()))
        };
        let position = row(&network.decoder_position, self.count)?;
        let mut state = Vec::with_capacity(tokens.len() * width);
        for token in tokens {
            state
                .extend(row(&network.embeddings, *token)?.iter().zip(position).map(|(a, b)| a + b));
        }
        self.count += 1;
        let mut attended = vec![0.0; state.len()];
        for (index, (layer, cross)) in network.decoder.iter().zip(&self.cross).enumerate() {
            let SelfAttention { norm, input, output } = &layer.attention;
            let parts = network.linear(input, &network.normalise(norm, &state))?;
            let texts = self.past.iter_mut().zip(parts.chunks_exact(3 * width));
            for ((past, parts), attended) in texts.zip(attended.chunks_exact_mut(width)) {
                let (queries, new) = parts.split_at_checked(width).unwrap_or_default();
                let Some(past) = past.get_mut(index) else { continue };
                past.extend_from_slice(new);
                let queries = Rows { data: queries, stride: width, count: 1 };
                network.attend(pairs(queries, past, width, self.count), attended)?;
            }
            add(&mut state, &network.linear(output, &attended)?);

            let queries = network
                .linear(&layer.cross_queries, &network.normalise(&layer.cross_norm, &state))?;
            let queries = Rows { data: &queries, stride: width, count: tokens.len() };
            network.attend(pairs(queries, cross, width, self.positions), &mut attended)?;
            add(&mut state, &network.linear(&layer.cross_output, &attended)?);
            network.feed_forward(&layer.feed_forward, &mut state)?;
        }
        Ok(state)
    }
}

/// Returns the queries, and the keys and values that are stored side by side in `both`.
fn pairs<'a>(queries: Rows<'a>, both: &'a [f32], width: usize, count: usize) -> [Rows<'a>; 3] {
    let part = |n: usize| Rows {
        data: both.get(n * width..).unwrap_or_default(),
        stride: 2 * width,
        count,
    };
    [queries, part(0), part(1)]
}
