"""Published figures on A2D's test split by the official protocol, in percent.

Tables 1 to 3 of *End-to-End Joint Semantic Segmentation of Actors and Actions in Video* (ECCV
2018), which has those of the earlier methods from their own papers. None: not given there.
"""

SOURCE = "Tables 1 to 3 of the paper (ECCV 2018)"

# (ave, glo, mIoU) of actor, action and joint.
SEGMENTATION = {
    "Trilayer": ((45.7, 74.6, None), (47.0, 74.6, None), (25.4, 76.2, None)),
    "GPM+TSP": ((58.3, 85.2, 33.4), (60.5, 85.3, 32.0), (43.3, 84.2, 19.9)),
    "GPM+GBH": ((59.4, 84.8, 33.3), (61.2, 84.9, 31.9), (43.9, 83.8, 19.9)),
    "TSMT+GBH": ((72.9, 85.8, 42.7), (61.4, 84.6, 35.5), (48.0, 83.9, 24.9)),
    "TSMT+SM": ((73.7, 90.6, 49.5), (60.5, 89.3, 42.2), (47.5, 88.7, 29.7)),
    "full": ((79.1, 94.5, 66.4), (62.9, 92.6, 46.3), (51.4, 92.5, 36.9)),
    "mask_rcnn": ((62.8, 84.2, 33.7), (59.6, 84.0, 30.3), (41.7, 82.5, 19.1)),
    "no_mask_grabcut": ((76.6, 92.2, 60.3), (60.7, 90.3, 42.9), (49.0, 89.8, 32.4)),
    "no_temporal": ((79.0, 94.1, 66.1), (61.8, 92.0, 45.5), (50.3, 90.2, 35.3)),
    "no_flow": ((79.5, 93.7, 66.5), (60.4, 86.3, 36.8), (46.2, 87.8, 29.4)),
    "separate_training": ((77.7, 93.2, 63.2), (62.1, 91.3, 45.2), (50.9, 90.1, 33.6)),
}

# mAP of actor, action and joint.
DETECTION = {
    "tsct": (67.2, 60.2, 49.2),
    "tshr": (67.9, 59.6, 49.6),
    "tsmt": (68.3, 60.0, 48.9),
    "full": (77.2, 62.4, 55.5),
}

# Methods of Table 1 that are not built here.
ONLY_PUBLISHED = ("Trilayer", "GPM+TSP", "GPM+GBH", "TSMT+GBH", "TSMT+SM")

# What was published under a name may differ from what is built here.
PUBLISHED_AS = {"no_mask_grabcut": "without mask head + SharpMask"}
