//! `offhook man`: one page, the program first and then each command.

use super::{Exit, print};

/// Prints the page.
pub(super) fn run(command: &clap::Command) -> Exit {
    let mut page = Vec::new();
    match render(command.clone(), &mut page) {
        Ok(()) => {
            print::bytes(&page);
            Exit::Done
        }
        Err(e) => Exit::failed(format_args!("could not make the manual page: {e}")),
    }
}

fn render(mut command: clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    command.build();
    clap_mangen::Man::new(command.clone()).render(page)?;
    for (name, sub) in leaves(&command, "offhook") {
        let man = clap_mangen::Man::new(sub);
        page.extend_from_slice(format!(".SH \"{}\"\n", name.to_uppercase()).as_bytes());
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
    }
    Ok(())
}

/// The commands that do something, with their whole names, hidden ones left out.
fn leaves(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .flat_map(|sub| {
            let name = format!("{name} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &name)
            } else {
                vec![(name.clone(), sub.clone())]
            }
        })
        .collect()
}
