"""One image at a time: file type, decoding, face alignment, crop and resize, encoding.

For other rooms: `file_types.file_type`, `decode.Decoder`, `align.align`, `crop_resize.Crop`, `crop_resize.crop_box`,
`crop_resize.scaled_crop`, `crop_resize.resize_batch` and `codecs.encode`. Import them from their files, so that
`--help` loads neither Pillow nor torch.
"""
