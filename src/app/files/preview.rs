//! Small pictures that we make ourselves. They are the only ones that are shown inside a page: what a stranger's encoder
//! wrote is offered as a download.
//!
//! A picture says in its first bytes how large it is, and a few hundred bytes may say "a billion pixels". So the size is
//! looked at before anything is decoded, and what is too large is refused with its size.

use std::io::Cursor;

use futures::TryStreamExt;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::Files;
use super::kind::FileKind;
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;
use crate::tenancy::storage::ObjectPath;

/// Width and height of a preview at most, in pixels.
const SIDE: u32 = 320;
/// Largest picture that is taken. A progressive JPEG takes 9 bytes of memory per pixel while it is decoded.
const MAX_PIXELS: u64 = 40_000_000;
/// Largest width and height.
const MAX_SIDE: u32 = 30_000;
/// Most memory of one decoded picture, in bytes: 16 bits a channel are taken up to half of the pixels.
const MAX_MEMORY: u64 = 160 << 20;
/// Largest file that is read back for a preview, in bytes; where larger ones may be sent, they have none.
const MAX_FILE: u64 = 64 << 20;
/// Of a preview as JPEG.
const QUALITY: u8 = 80;

/// A preview, encoded.
pub struct Preview {
    pub kind: FileKind,
    pub bytes: Vec<u8>,
}

/// The preview of a picture that has just been stored; `None` where it is no picture or cannot be decoded.
///
/// # Errors
/// The picture is too large to be decoded, or storage is away.
pub async fn of(
    files: &Files,
    tenant: &TenantContext,
    path: &ObjectPath,
    kind: FileKind,
) -> Result<Option<Preview>, Problem> {
    let Some(format) = kind.picture() else { return Ok(None) };
    // Before it is read back: the permit bounds the memory of the whole.
    let _permit = files.pictures.acquire().await.expect("the semaphore is never closed");
    let mut content = tenant.storage().get(path).await?;
    if content.bytes > MAX_FILE {
        return Ok(None);
    }
    let mut picture = Vec::with_capacity(usize::try_from(content.bytes).unwrap_or_default());
    while let Some(part) = content.stream.try_next().await? {
        picture.extend_from_slice(&part);
    }
    let made = tokio::task::spawn_blocking(move || make(&picture, format)).await;
    made.map_err(|error| Problem::Internal(format!("making a preview: {error}")))?.map_err(Problem::Invalid)
}

fn make(picture: &[u8], format: ImageFormat) -> Result<Option<Preview>, String> {
    let mut limits = Limits::no_limits();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    limits.max_alloc = Some(MAX_MEMORY);
    // First the size alone, without limits, so that a refusal can name it.
    let mut header = ImageReader::with_format(Cursor::new(picture), format);
    header.no_limits();
    let Ok((width, height)) = header.into_dimensions() else { return Ok(None) };
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(too_large(width, height));
    }
    let mut reader = ImageReader::with_format(Cursor::new(picture), format);
    reader.limits(limits);
    let decoded = reader.into_decoder().and_then(|mut decoder| {
        if decoder.total_bytes() > MAX_MEMORY {
            return Ok(Err(too_large(width, height)));
        }
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image = image.thumbnail(SIDE, SIDE);
        image.apply_orientation(orientation);
        Ok(Ok(image))
    });
    match decoded {
        Ok(image) => image.map(|image| encode(&image)),
        Err(ImageError::Limits(_)) => Err(too_large(width, height)),
        // Broken or of a kind that we cannot read: a file like any other, without a preview.
        Err(_) => Ok(None),
    }
}

fn too_large(width: u32, height: u32) -> String {
    let most = MAX_PIXELS / 1_000_000;
    format!(
        "The picture has {width} × {height} pixels and is too large to be opened safely. Shrink it to {most} megapixels or less."
    )
}

fn encode(image: &DynamicImage) -> Option<Preview> {
    let mut bytes = Cursor::new(Vec::new());
    let kind = if image.color().has_alpha() {
        image.to_rgba8().write_to(&mut bytes, ImageFormat::Png).ok()?;
        FileKind::Png
    } else {
        JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&image.to_rgb8()).ok()?;
        FileKind::Jpeg
    };
    Some(Preview { kind, bytes: bytes.into_inner() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_preview_is_small_and_of_our_own_making() {
        let photo = DynamicImage::from(RgbImage::from_pixel(1200, 600, Rgb([200, 30, 30])));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
            let preview = make(&encoded(&photo, format), format).unwrap().unwrap();
            let again = image::load_from_memory(&preview.bytes).unwrap();
            assert_eq!((again.width(), again.height()), (320, 160), "{format:?}");
            assert_eq!(FileKind::of(&preview.bytes), preview.kind);
        }
        let drawing = DynamicImage::from(RgbaImage::from_pixel(10, 10, Rgba([0, 0, 0, 0])));
        let preview = make(&encoded(&drawing, ImageFormat::Png), ImageFormat::Png).unwrap().unwrap();
        assert_eq!(preview.kind, FileKind::Png, "what is transparent stays so");
    }

    #[test]
    fn a_picture_that_says_it_is_huge_is_refused_by_its_header() {
        // A PNG header of 60,000 × 60,000 pixels, and a GIF's.
        let mut png = encoded(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png);
        png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let refused = make(&png, ImageFormat::Png).err().unwrap();
        assert!(refused.contains("60000 × 60000"), "{refused}");
        let mut gif = encoded(&DynamicImage::new_rgb8(1, 1), ImageFormat::Gif);
        gif[6..8].copy_from_slice(&60_000_u16.to_le_bytes());
        gif[8..10].copy_from_slice(&60_000_u16.to_le_bytes());
        assert!(make(&gif, ImageFormat::Gif).is_err());
        // Within the sides, but too many pixels in all.
        let wide = encoded(&DynamicImage::new_luma8(30_000, 1_400), ImageFormat::Png);
        assert!(wide.len() < 1_000_000 && make(&wide, ImageFormat::Png).is_err());
    }

    #[test]
    fn what_is_broken_has_no_preview() {
        let photo = encoded(&DynamicImage::new_rgb8(64, 64), ImageFormat::Png);
        assert!(make(&photo[..40], ImageFormat::Png).unwrap().is_none());
        assert!(make(b"\xff\xd8\xff\xe0", ImageFormat::Jpeg).unwrap().is_none());
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
    }
}
