"""Stage ``privacy_audit``: what an arm's models and samples give away of its training images."""
