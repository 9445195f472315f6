"""What lights every scene, whichever renderer takes its picture."""

LIGHTS = {"key": (700.0, 2.0), "fill": (250.0, 4.0), "back": (300.0, 1.5)}  # W, disk diameter
GROUND_ALBEDO = 0.42
SKY = (0.8, 0.8, 0.82)  # linear RGB, the same from everywhere
SKY_STRENGTH = 0.35
