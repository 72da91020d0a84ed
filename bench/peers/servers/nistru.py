"""nistru, as `nistru dev` sets it up."""

from .server import Server


class Nistru(Server):
    """Makes its own certificates; `dev_directory` is where its clients find them."""

    def __init__(self, directory, certificates, program, cores):
        super().__init__(directory, certificates)
        self.program = program
        self.cores = cores
        self.dev_directory = self.directory / "dev"

    def start(self):
        self.spawn([self.program, "dev", "--dir", self.dev_directory, "--port", "0", "--cores", str(self.cores)])
        self.url = self.wait(self._ready)

    def _ready(self):
        """The address in the line `ready URL`, once the broker has written it."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line.removeprefix("ready ") for line in lines if line.startswith("ready https://")), None)
