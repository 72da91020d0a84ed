"""What is read from the kernel's texts."""

import os
import subprocess
import sys
import unittest

import machine


class Machine(unittest.TestCase):
    def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields(self):
        ticks = machine.TICKS_PER_S
        text = f"7 (a) b) S 3 7 7 0 -1 4194304 100 0 0 0 {ticks} {2 * ticks} {3 * ticks} {4 * ticks} 20 0 1 0 5 1000 10"
        self.assertEqual(machine.parse_stat(text), machine.Process(parent=3, cpu=10.0))

    def test_a_tree_holds_children_of_children_and_nobody_else(self):
        processes = {pid: machine.Process(parent, 0.0) for pid, parent in {1: 0, 2: 1, 3: 2, 4: 1, 5: 3}.items()}
        self.assertEqual(sorted(machine.tree(processes, [2, 99])), [2, 3, 5])

    def test_memory_of_a_child_counts(self):
        command = [sys.executable, "-c", "import sys; block = bytearray(64 << 20); print(flush=True); sys.stdin.read()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            self.assertGreater(machine.pss_mib([child.pid]), 64)
            self.assertGreater(machine.pss_mib([os.getpid()]), machine.pss_mib([child.pid]))
            child.stdin.close()


if __name__ == "__main__":
    unittest.main()
