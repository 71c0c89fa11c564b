// SPDX-License-Identifier: GPL-2.0

//! The descriptor of a hold: an anonymous file whose last close releases the tree.

use kernel::{
    bindings,
    error::{
        from_err_ptr,
        from_result, //
    },
    fs::{
        file::{
            flags::{
                O_CLOEXEC,
                O_RDWR, //
            },
            FileDescriptorReservation, //
        },
        File,
        LocalFile, //
    },
    ioctl::_IO,
    new_mutex,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Mutex, //
    }, //
};

use core::ptr::NonNull;

use crate::hold::{
    Control,
    Hold, //
};

const RENEW: u32 = _IO(bindings::CHECKPOINT_IOC_MAGIC, 0);
const RELEASE: u32 = _IO(bindings::CHECKPOINT_IOC_MAGIC, 1);
const KILL: u32 = _IO(bindings::CHECKPOINT_IOC_MAGIC, 2);
const STOP: u32 = _IO(bindings::CHECKPOINT_IOC_MAGIC, 3);

/// What a hold descriptor refers to.
#[pin_data]
struct HoldFile {
    control: Control,
    /// Locked while the hold is captured.
    #[pin]
    hold: Mutex<Hold>,
}

/// `struct file_operations` is shared between threads by design.
struct Operations(bindings::file_operations);

// SAFETY: It is never written.
unsafe impl Sync for Operations {}

static OPERATIONS: Operations = Operations(bindings::file_operations {
    release: Some(release),
    unlocked_ioctl: Some(ioctl),
    compat_ioctl: Some(ioctl),
    show_fdinfo: Some(show_fdinfo),
    ..pin_init::zeroed()
});

/// The `HoldFile` of `file`, `None` if it is another kind of file.
fn hold_file(file: &File) -> Option<&HoldFile> {
    // SAFETY: `f_op` and `private_data` of an open file do not change.
    let (ops, data) = unsafe { ((*file.as_ptr()).f_op, (*file.as_ptr()).private_data) };

    if !core::ptr::eq(ops, &OPERATIONS.0) {
        return None;
    }
    // SAFETY: Files with these operations are made by `install()` only, and own the `HoldFile`
    // until `release()`, which is called after the last reference is gone.
    Some(unsafe { &*data.cast::<HoldFile>() })
}

/// A descriptor number and a file, made before the tree is stopped: nothing is left to fail after.
pub(crate) struct Slot(FileDescriptorReservation);

impl Slot {
    /// Reserves a descriptor of the caller. EMFILE.
    pub(crate) fn reserve() -> Result<Slot> {
        FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC).map(Slot)
    }

    /// Makes the descriptor refer to `hold`, and returns its number. On error the tree is
    /// released.
    pub(crate) fn install(self, hold: Hold) -> Result<u32> {
        let data = KBox::pin_init(
            try_pin_init!(HoldFile {
                control: hold.control(),
                hold <- new_mutex!(hold),
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: It is not moved: the file owns it from here on.
        let data = KBox::into_raw(unsafe { Pin::into_inner_unchecked(data) });

        // SAFETY: The name and the operations are static, and `data` is what they expect.
        let file = from_err_ptr(unsafe {
            bindings::anon_inode_getfile(
                c"[checkpoint]".as_char_ptr(),
                &OPERATIONS.0,
                data.cast(),
                (O_RDWR | O_CLOEXEC) as c_int,
            )
        })
        .inspect_err(|_| {
            // SAFETY: There is no file that owns it.
            drop(unsafe { KBox::from_raw(data) });
        })?;
        let file = NonNull::new(file.cast::<File>()).ok_or(ENOMEM)?;

        // SAFETY: It is new: nobody uses its position, and the reference is ours.
        let file = unsafe { ARef::<File>::from_raw(file) };
        let fd = self.0.reserved_fd();
        self.0.fd_install(file);
        Ok(fd)
    }
}

/// A hold descriptor that somebody passed to checkpoint(2).
pub(crate) struct HoldRef {
    file: ARef<File>,
}

impl HoldRef {
    /// EBADF: not a descriptor. EINVAL: not that of a hold.
    pub(crate) fn get(fd: i32) -> Result<HoldRef> {
        let file = file(fd)?;

        hold_file(&file).ok_or(EINVAL)?;
        Ok(HoldRef { file })
    }

    /// The hold, for one capture. EBUSY while there is another.
    pub(crate) fn capture(&self) -> Result<Guard<'_, Hold, MutexBackend>> {
        let hold = hold_file(&self.file).ok_or(EINVAL)?;

        hold.control.renew()?;
        hold.hold.try_lock().ok_or(EBUSY)
    }
}

/// The file that `fd` refers to. EBADF.
pub(crate) fn file(fd: i32) -> Result<ARef<File>> {
    let fd = u32::try_from(fd).map_err(|_| EBADF)?;
    let file = LocalFile::fget(fd)?;

    // SAFETY: This is a system call of its own: `current` has no `fdget_pos()` under way.
    Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
}

/// Releases the tree with the last reference to the file.
///
/// # Safety
///
/// Called by the VFS only, for a file with `OPERATIONS`.
unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: `install()` has stored the pointer, and nothing else refers to the file any more.
    drop(unsafe { KBox::from_raw((*file).private_data.cast::<HoldFile>()) });
    0
}

/// ENOTTY: not an operation. ESRCH: the hold has ended.
///
/// # Safety
///
/// Called by the VFS only, for a file with `OPERATIONS`.
unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, _: c_ulong) -> c_long {
    // SAFETY: `file` is valid for the call, and nobody uses the position of such files.
    let file = unsafe { File::from_raw_file(file) };

    from_result(|| {
        let control = &hold_file(file).ok_or(EINVAL)?.control;

        match cmd {
            RENEW => control.renew()?,
            RELEASE => control.release(),
            KILL => control.kill()?,
            STOP => control.stop()?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by procfs only, for a file with `OPERATIONS`.
unsafe extern "C" fn show_fdinfo(m: *mut bindings::seq_file, file: *mut bindings::file) {
    // SAFETY: Both are valid for the call, and `m` is ours.
    let (m, file) = unsafe { (SeqFile::from_raw(m), File::from_raw_file(file)) };

    if let Some(hold) = hold_file(file) {
        hold.control.show(m);
    }
}
