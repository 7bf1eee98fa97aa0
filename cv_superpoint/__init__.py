"""SuperPoint keypoints and descriptors behind the interface of cv2.SIFT."""

__version__ = "0.1.0"
