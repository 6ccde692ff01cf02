//! Tests of the phonemes of words and sentences. One compares them with those of `espeak-ng`, from
//! which the voice was trained.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rstest::rstest;

use super::phonemes;

#[rstest]
#[case("Olá, bom dia.", "olˈa, bˈoŋ ʤˈiæ.")]
// Words without stress, before others and at the end.
#[case("Você tem uma conta.", "vosˌe tAŋ ˌumæ kˈoŋtæ.")]
#[case("É você?", "ɛ vosˈe?")]
// The end of a word depends on the next one.
#[case("dois gatos, as casas", "dˈoɪz ɡˈatʊs, as kˈazæs")]
#[case("mais um", "mˈIz ˈu\u{303}ŋ")]
#[case("falar ao telefone", "falˈaɾ W tˌelefˈony")]
#[case("vinte e nove horas", "vˈiŋʧj i nˈɔvy ˈɔɾæs")]
#[case("novo amigo", "nˈovw ˌæmˈiɡʊ")]
#[case("segunda-feira", "sˌeɡˈu\u{303}ŋdæfˈAɾæ")]
#[case("2 pessoas (R$ 1,00)!", "dˈuæs pˌesˈoæs, u\u{303}ŋ xeˈW!")]
#[case("CPF", "sˈe pˈe ˈɛfy")]
#[case("\u{1F600} -", "")]
#[case("", "")]
fn sentences_become_phonemes(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(phonemes(text), expected);
}

#[rstest]
// Vowels at the end, and consonants between vowels.
#[case("casa", "kˈazæ")]
#[case("mesa", "mˈezæ")]
#[case("carro", "kˈaxʊ")]
#[case("hora", "ˈɔɾæ")]
#[case("dia", "ʤˈiæ")]
#[case("noite", "nˈoɪʧy")]
#[case("tarde", "tˈaɾəʤy")]
#[case("cidade", "sˌidˈaʤy")]
#[case("gente", "ʒˈAŋʧy")]
#[case("leite", "lˈAʧy")]
#[case("sede", "sˈeʤy")]
// Nasal vowels.
#[case("telefone", "tˌelefˈony")]
#[case("mensagem", "mˌAŋsˈaʒAŋ")]
#[case("homem", "ˈomAŋ")]
#[case("homens", "ˈomAŋs")]
#[case("jovem", "ʒˈɔvAŋ")]
#[case("também", "tɐ\u{303}mbˈAŋ")]
#[case("alguém", "WɡˈAŋ")]
#[case("bem", "bˈAŋ")]
#[case("cem", "sˈAŋ")]
#[case("fim", "fˈiŋ")]
#[case("jardim", "ʒaɾəʤˈiŋ")]
#[case("bom", "bˈoŋ")]
#[case("som", "sˈoŋ")]
#[case("comum", "komˈu\u{303}ŋ")]
#[case("nunca", "nˈu\u{303}ŋkæ")]
#[case("mundo", "mˈu\u{303}ŋdʊ")]
#[case("onde", "ˈoŋʤy")]
#[case("campo", "kˈɐ\u{303}mpʊ")]
#[case("tempo", "tˈAmpʊ")]
#[case("sempre", "sˈAmpry")]
#[case("senhor", "seɲˈor")]
#[case("amanhã", "ˌæmɐ\u{303}ɲˈɐ\u{303}")]
// The tilde.
#[case("não", "nˈɐ\u{303}ʊ\u{303}")]
#[case("mão", "mˈɐ\u{303}ʊ\u{303}")]
#[case("mães", "mˈɐ\u{303}ys")]
#[case("põe", "pˈo\u{303}j")]
#[case("coração", "kˌoɾasˈɐ\u{303}ʊ\u{303}")]
#[case("ligações", "lˌiɡasˈo\u{303}js")]
#[case("milhões", "miljˈo\u{303}js")]
#[case("irmã", "iɾəmˈɐ\u{303}")]
#[case("órfão", "ˈɔɾəfɐ\u{303}ʊ\u{303}")]
#[case("falaram", "fˌalˈaɾɐ\u{303}ʊ\u{303}")]
#[case("viagens", "vˌiˈaʒAŋs")]
// Letters with an h.
#[case("filho", "fˈiljʊ")]
#[case("lhe", "ʎˈy")]
#[case("milhão", "miljˈɐ\u{303}ʊ\u{303}")]
#[case("ninho", "nˈiɲʊ")]
#[case("vinho", "vˈiɲʊ")]
#[case("banho", "bˈɐ\u{303}ɲʊ")]
// The sounds of r.
#[case("rua", "xˈuæ")]
#[case("honra", "ˈoŋxæ")]
#[case("israel", "ˌizxaˈɛʊ")]
#[case("porta", "pˈɔɾətæ")]
#[case("amor", "æmˈor")]
#[case("árvore", "ˈaɾəvoɾy")]
#[case("trabalho", "trˌabˈaljʊ")]
#[case("preto", "prˈetʊ")]
// The l at the end of a syllable.
#[case("sol", "sˈɔl")]
#[case("azul", "azˈuw")]
#[case("papel", "papˈɛʊ")]
#[case("fácil", "fˈasiʊ")]
#[case("possível", "pˌosˈiveʊ")]
#[case("último", "ˈulʧimʊ")]
#[case("volta", "vˈɔltæ")]
#[case("brasil", "brazˈiʊ")]
#[case("soldado", "sˌowdˈadʊ")]
// The sounds of s, sc, xc and z.
#[case("caso", "kˈazʊ")]
#[case("mesmo", "mˈezmʊ")]
#[case("desde", "dˈezʤy")]
#[case("dois", "dˈoɪs")]
#[case("nascer", "nasˈer")]
#[case("excelente", "ˌeselˈAŋʧy")]
#[case("exceção", "ˌesesˈɐ\u{303}ʊ\u{303}")]
#[case("isso", "ˈisʊ")]
#[case("transação", "trˌɐ\u{303}ŋzasˈɐ\u{303}ʊ\u{303}")]
#[case("paz", "pˈas")]
// The sounds of x.
#[case("xícara", "ʃˈikæɾæ")]
#[case("caixa", "kˈIʃæ")]
#[case("exame", "ˌezˈɐ\u{303}my")]
#[case("próximo", "prˈɔsimʊ")]
#[case("texto", "tˈestʊ")]
#[case("táxi", "tˈaksi")]
#[case("sexo", "sˈɛksʊ")]
#[case("trouxe", "trˈowsy")]
#[case("exceto", "ˌesˈɛtʊ")]
#[case("enxergar", "ˌAŋʃeɾəɡˈar")]
// The letter u after q and g.
#[case("quero", "kˈɛɾʊ")]
#[case("quando", "kwˈɐ\u{303}ŋdʊ")]
#[case("tranquilo", "trˌɐ\u{303}ŋkwˈilʊ")]
#[case("guerra", "ɡˈɛxæ")]
#[case("água", "ˈaɡwæ")]
#[case("linguiça", "lˌiŋɡwˈisæ")]
#[case("cinquenta", "sˌiŋkwˈAŋtæ")]
// Accents and diphthongs.
#[case("avô", "avˈo")]
#[case("avó", "avˈɔ")]
#[case("café", "kafˈɛ")]
#[case("você", "vosˈe")]
#[case("país", "paˈis")]
#[case("saída", "sˌaˈidæ")]
#[case("rainha", "xˌaˈiɲæ")]
#[case("ainda", "ˌaˈiŋdæ")]
#[case("cair", "kaˈir")]
#[case("ruim", "xuˈiŋ")]
#[case("cuidado", "kˌuɪdˈadʊ")]
#[case("viu", "vˈiʊ")]
#[case("meu", "mˈeʊ")]
#[case("céu", "sˈɛʊ")]
#[case("herói", "eɾˈY")]
#[case("ideia", "ˌidˈɛɪæ")]
#[case("meia", "mˈAæ")]
#[case("ouro", "ˈowɾʊ")]
// Open and closed vowels.
#[case("novo", "nˈovʊ")]
#[case("nova", "nˈɔvæ")]
#[case("olho", "ˈoljʊ")]
#[case("olhos", "ˈɔljʊs")]
#[case("pessoa", "pˌesˈoæ")]
#[case("famoso", "fˌæmˈozʊ")]
#[case("famosa", "fˌæmˈɔzæ")]
#[case("resposta", "xˌespˈɔstæ")]
#[case("certeza", "sˌeɾətˈezæ")]
#[case("cabeça", "kˌabˈesæ")]
#[case("mulher", "muljˈɛr")]
#[case("fazer", "fazˈer")]
#[case("maior", "mIˈɔr")]
#[case("doutora", "dˌowtˈoɾæ")]
// Vowels after the stress, and secondary stress.
#[case("história", "ˌistˈɔɾjæ")]
#[case("ciência", "sjˈAŋsjæ")]
#[case("série", "sˈɛɾjy")]
#[case("vídeo", "vˈiʤjʊ")]
#[case("sábado", "sˈabædʊ")]
#[case("número", "nˈu\u{303}meɾʊ")]
#[case("rapidamente", "xˌapidæmˈAŋʧy")]
#[case("universidade", "ˌunivˌeɾəsidˈaʤy")]
#[case("confirmação", "kˌoŋfiɾəmasˈɐ\u{303}ʊ\u{303}")]
// Other consonants.
#[case("chave", "ʃˈavy")]
#[case("cheque", "ʃˈɛky")]
#[case("hospital", "ˌospitˈW")]
#[case("ciclo", "sˈiklʊ")]
#[case("gelo", "ʒˈelʊ")]
#[case("gata", "ɡˈatæ")]
#[case("girassol", "ʒˌiɾasˈɔl")]
#[case("jogo", "ʒˈoɡʊ")]
#[case("psicólogo", "psˌikˈɔloɡʊ")]
#[case("técnico", "tˈɛknikʊ")]
// Foreign words.
#[case("site", "sˈIʧy")]
#[case("internet", "ˌiŋteɾənˈɛʧy")]
#[case("whatsapp", "ˌuaʧisˈapi")]
#[case("google", "ɡˈuɡow")]
#[case("muito", "mwˈiŋtʊ")]
fn words_have_their_sounds(#[case] word: &str, #[case] expected: &str) {
    assert_eq!(phonemes(word), expected);
}

/// Common words, and words of phone prompts.
const COMMON: &str = "olá bom boa dia tarde noite obrigado obrigada por favor sim não talvez aqui ali agora depois \
    antes hoje amanhã ontem sempre nunca também muito pouco mais menos melhor pior grande \
    pequeno novo velho aberto fechado certo errado um dois três quatro cinco seis sete oito nove \
    dez onze doze treze quatorze quinze dezesseis dezessete dezoito dezenove vinte trinta \
    quarenta cinquenta sessenta setenta oitenta noventa cem cento duzentos trezentos quinhentos \
    mil milhão milhões segunda terça quarta quinta sexta sábado domingo janeiro fevereiro março \
    abril maio junho julho agosto setembro outubro novembro dezembro semana mês ano hora minuto \
    segundo manhã feriado calendário horário data prazo pessoa homem mulher criança filho filha \
    pai mãe irmão irmã amigo amiga senhor senhora doutor doutora cliente atendente gerente \
    vendedor professor médico advogado secretária empresa escritório loja fábrica escola \
    hospital clínica farmácia banco restaurante hotel aeroporto estação rodoviária rua avenida \
    praça bairro cidade estado país endereço número andar apartamento telefone celular chamada \
    ligação mensagem recado gravação linha ramal tecla código senha protocolo pedido entrega \
    produto serviço conta fatura boleto pagamento valor preço desconto taxa juros multa saldo \
    extrato cartão crédito débito transferência dinheiro real reais centavo centavos compra \
    venda troca devolução garantia reembolso contrato assinatura plano pacote internet sinal \
    velocidade instalação técnico visita suporte ajuda problema solução dúvida pergunta resposta \
    informação informações opção opções menu atendimento espera fila urgência emergência \
    consulta exame agendamento agenda confirmação cancelamento cadastro nome sobrenome documento \
    identidade nascimento idade sexo profissão salário trabalho férias viagem passagem bagagem \
    voo reserva quarto mesa almoço jantar café água comida fruta carne peixe pão leite açúcar \
    sal arroz feijão digite tecle aguarde escolha fale diga ouça repita confirme cancele \
    pressione desligue espere retorne ligue envie receba falar ouvir ligar pagar comprar vender \
    abrir fechar começar terminar entrar sair chegar partir trazer levar fazer dizer quero \
    queria posso pode podemos temos tenho está estão foi será seria preciso precisa gostaria \
    gosto sei sabe entendi coração televisão computador mensagens homens jovem viagens lápis \
    fácil difícil possível disponível importante necessário árvore ônibus caminhão carro chuva \
    sol vento céu mar praia rio montanha cachorro gato pássaro cavalo";

/// The share of [`COMMON`] that must have the same phonemes as with `espeak-ng`, in per cent. The
/// others are mostly words in which `espeak-ng` omits the secondary stress.
const SHARE_MIN: usize = 97;

#[test]
fn common_words_have_the_phonemes_of_espeak() {
    let words: Vec<&str> = COMMON.split_whitespace().collect();
    let Some(expected) = espeak(&words) else { return };
    assert_eq!(expected.len(), words.len());
    let found = words.iter().map(|word| phonemes(word));
    let different: Vec<String> = words
        .iter()
        .zip(found.zip(&expected))
        .filter(|(_, (found, expected))| found != *expected)
        .map(|(word, (found, expected))| format!("{word}: {found}, espeak-ng {expected}"))
        .collect();
    let same = words.len() - different.len();
    assert!(same * 100 >= words.len() * SHARE_MIN, "{same} of {}: {different:#?}", words.len());
}

/// Returns the phonemes of words by `espeak-ng`, in the symbols of the voice. Returns `None` and
/// reports that the test is skipped if the program is absent.
fn espeak(words: &[&str]) -> Option<Vec<String>> {
    const SYMBOLS: [(&str, &str); 6] =
        [("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y")];
    let program = Command::new("espeak-ng")
        .args(["-q", "-v", "pt-br", "--ipa", "--tie=^"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut program) = program else {
        crate::report_skipped(
            "espeak-ng",
            "espeak-ng is not on PATH (Debian: apt install espeak-ng)",
        );
        return None;
    };
    // An empty line ends a clause. The program reads all of its input before it prints more than a
    // pipe holds.
    program.stdin.take()?.write_all(words.join("\n\n").as_bytes()).ok()?;
    let output = program.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let read = |line: &str| {
        let symbols = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        SYMBOLS.iter().fold(line.trim().to_owned(), symbols).replace('^', "")
    };
    Some(text.lines().map(read).filter(|line| !line.is_empty()).collect())
}
