"""What a trained model gives away of its training images: measured attacks, not promises."""
