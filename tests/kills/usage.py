"""usage.py - what scripts/jepsen and scripts/kills both take on their command lines."""
import argparse
import os
import random
import sys

import systems


def setting(text):
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is no KEY=VALUE")
    return key, value


class Parser(argparse.ArgumentParser):
    def __init__(self, name, description, rate):
        super().__init__(prog=f"scripts/{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.name = name
        self.add_argument("--seed", type=int, default=None)
        self.add_argument("--rate", type=float, default=rate, help="values a second (%(default)s)")
        self.add_argument("--config", type=setting, action="append", default=[], metavar="KEY=VALUE", help="of the servers")
        self.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=VALUE", help="of librdkafka")
        self.add_argument("--out", default=None, metavar="FOLDER", help=f"build/{name}/SEED")

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")

    def parse(self, arguments):
        options = self.parse_args(arguments)
        options.config = dict(options.config)
        options.seed = random.randrange(1 << 30) if options.seed is None else options.seed
        options.out = options.out or os.path.join(systems.TOP, "build", self.name, str(options.seed))
        return options
