//! Man pages and completions of a command line.

use std::{io, path::Path};

use clap_complete::Shell;

/// Writes a man page for each command (`man/`) and completions for shells (`completions/`) into a
/// folder.
pub fn generate(mut command: clap::Command, folder: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, &name, &completions)?;
    }
    clap_mangen::generate_to(command.disable_help_subcommand(true), &man)
}
