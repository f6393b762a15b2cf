"""drivecast: model-based driving. Importing it registers its environments with gymnasium, as `drivecast/NAME`.

In a checkout this folder holds links to the four packages at the top of the repository; a wheel holds the files.
"""

from drivecast.envs.registration import register

register()
