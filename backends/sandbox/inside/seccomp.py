"""A filter of system calls for the code that runs: no processes, no sockets, nothing of the kernel's that it needs not.

The namespaces of bubblewrap are the wall; this leaves less of the kernel to attack, and makes one process the whole of
what limits per process must bound. Classic BPF, https://docs.kernel.org/userspace-api/seccomp_filter.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; of the argument its lower half on little-endian machines."""
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x00010000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_FIRST_UNKNOWN = 451
"""Calls from here on are newer than this list; libraries try them and take an older one instead."""


@dataclass(frozen=True, slots=True)
class Machine:
    """System call numbers of an architecture. audit: its AUDIT_ARCH; foreign: first number of another ABI, or 0."""

    audit: int
    foreign: int
    clone: int
    of_own_process: tuple[int, ...]
    denied: tuple[int, ...]


_CLONE3 = 435
_EVERYWHERE = (
    *(424, 434, 438, 440),  # pidfd_send_signal, pidfd_open, pidfd_getfd, process_madvise
    *(425, 426, 427),  # io_uring_setup, io_uring_enter, io_uring_register
    *(428, 429, 430, 431, 432, 433, 442),  # open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
    447,  # memfd_secret
)
MACHINES = {
    "x86_64": Machine(
        audit=0xC000003E,
        foreign=0x40000000,
        clone=56,
        of_own_process=(62, 234),  # kill, tgkill
        denied=(
            *(57, 58, 59, 322),  # fork, vfork, execve, execveat
            *(200, 129, 297),  # tkill, rt_sigqueueinfo, rt_tgsigqueueinfo
            *(101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
            *(41, 319),  # socket, memfd_create
            *(29, 64, 68, 240),  # shmget, semget, msgget, mq_open
            *(165, 166, 155, 161, 272, 308),  # mount, umount2, pivot_root, chroot, unshare, setns
            *(105, 106, 113, 114, 117, 119, 116, 122, 123, 126),  # set*id, setgroups, setfs*id, capset
            *(248, 249, 250, 321, 298, 323),  # add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd
            *(246, 320, 175, 313, 176),  # kexec_load, kexec_file_load, init_module, finit_module, delete_module
            *(303, 304, 179, 167, 168, 169),  # name_to_handle_at, open_by_handle_at, quotactl, swapon, swapoff, reboot
            *(256, 279, 135, 103, 163, 300, 212),  # migrate_pages, move_pages, personality, syslog, acct, fanotify, ..
            *(164, 227, 159, 305, 170, 171, 153),  # settimeofday, clock_settime, adjtimex, clock_adjtime, set*name, ..
            *(154, 172, 173, 134),  # modify_ldt, iopl, ioperm, uselib
            *_EVERYWHERE,
        ),
    ),
    "aarch64": Machine(
        audit=0xC00000B7,
        foreign=0,
        clone=220,
        of_own_process=(129, 131),
        denied=(
            *(221, 281),
            *(130, 138, 240),
            *(117, 270, 271, 272),
            *(198, 279),
            *(194, 190, 186, 180),
            *(40, 39, 41, 51, 97, 268),
            *(146, 144, 145, 143, 147, 149, 159, 151, 152, 91),
            *(217, 218, 219, 280, 241, 282),
            *(104, 294, 105, 273, 106),
            *(264, 265, 60, 224, 225, 142),
            *(238, 239, 92, 116, 89, 262, 18),
            *(170, 112, 171, 266, 161, 162, 58),
            *_EVERYWHERE,
        ),
    ),
}


def program(machine: Machine, pid: int) -> bytes:
    """The filter for process `pid`, struct sock_filter[]. What it denies fails with EPERM, what it hides ENOSYS."""
    permission, hidden = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine.foreign:
        code += [(_AT_LEAST, 0, 1, machine.foreign), (_RETURN, 0, 0, permission)]
    code += [(_AT_LEAST, 0, 1, _FIRST_UNKNOWN), (_RETURN, 0, 0, hidden)]
    code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, hidden)]  # its flags lie in memory, where no filter can look
    code += [(_EQUAL, 0, 4, machine.clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_HAS_BITS, 0, 1, _CLONE_THREAD)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, permission)]
    for number in machine.of_own_process:
        code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 0, 1, pid)]
        code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, permission)]
    for number in machine.denied:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, permission)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def install() -> None:
    """Put the filter on this process, which must have one thread, for the rest of its life. Raises OSError."""
    code = program(MACHINES[platform.machine()], os.getpid())
    instructions = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions)))
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")
