cwlVersion: v1.2
class: CommandLineTool
label: Correct
doc: Take the corrected image of a product, or make it by dividing the image by the primary beam.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: correct.py
        entry: {$include: correct.py}
hints:
  SoftwareRequirement:
    packages:
      astropy: {specs: ["https://www.astropy.org"]}

baseCommand: [python3, correct.py]
inputs:
  product:
    type: Directory
    label: Product
    doc: A product directory.
    inputBinding: {position: 1}
  image:
    type: string?
    label: Image
    doc: Name of the image that is not corrected for the primary beam.
    inputBinding: {prefix: "--image=", separate: false}
  pb:
    type: string?
    label: Primary beam
    doc: Name of the primary beam image.
    inputBinding: {prefix: "--pb=", separate: false}
  pbcor:
    type: string?
    label: Corrected image
    doc: Name of the image that is corrected for the primary beam.
    inputBinding: {prefix: "--pbcor=", separate: false}
outputs:
  # The script writes cwl.output.json.
  corrected:
    type: File
    label: Corrected
    doc: The corrected image.
  derived:
    type: boolean
    label: Derived
    doc: Whether the corrected image was made here because the product has none.
