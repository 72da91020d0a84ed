//! Makes the JSON form of `openapi.yaml`, so that the broker needs no YAML parser, and has the linker put `rt::ring` and `rt::barrier` in
//! their places.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup,--wrap=__sys_io_uring_enter2");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg=-Wl,--wrap=syscall");
    }
    println!("cargo::rerun-if-changed=openapi.yaml");
    let text = fs::read_to_string("openapi.yaml").expect("openapi.yaml can be read");
    let document: serde_json::Value =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("openapi.yaml: {error}"));
    let json = serde_json::to_vec(&document).expect("what was read from YAML can be written as JSON");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names the directory"));
    fs::write(out.join("openapi.json"), json).expect("openapi.json can be written");
}
