//! No code: see `Cargo.toml`. Packages for people are built without it (`--no-default-features`).
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        process::Command,
    };

    /// By package: the features with which it is built.
    fn features(arguments: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
        let root = "../..";
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--prefix", "none", "-f", "{p}|{f}"])
            .args(arguments)
            .current_dir(root)
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (package, features) in text.lines().filter_map(|line| line.split_once('|')) {
            let features = features.trim_end_matches(" (*)").split(',').filter(|name| !name.is_empty());
            packages.entry(package.to_owned()).or_default().extend(features.map(str::to_owned));
        }
        packages
    }

    #[test]
    fn tests_are_built_with_the_libraries_that_the_programs_are_built_with() {
        let programs = features(&["-e", "normal"]);
        let tests = features(&["--workspace", "-e", "normal,dev"]);
        assert!(programs.len() > 300, "{}", programs.len());
        let differ: Vec<String> = programs
            .iter()
            .filter_map(|(package, has)| {
                let more: Vec<&String> = tests.get(package)?.difference(has).collect();
                (!more.is_empty()).then(|| format!("{package}: {more:?}"))
            })
            .collect();
        assert!(differ.is_empty(), "name these in Cargo.toml of rollcall-one-build: {differ:#?}");
    }
}
